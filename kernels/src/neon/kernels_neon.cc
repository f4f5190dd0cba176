// NEON: a lane is one byte of one output channel's weights, 16 channels to a register.
//
// Per byte of the pixel and register: count += cnt(w eor dup(a)), three operations for 16 * 8 = 128
// multiply-adds, and the byte counts are already per channel: no pairwise sums. With the loads of a tile of 6
// pixels by 4 registers that is 79 vector instructions for 24 times 128. A byte step adds at most 8 to a
// byte, so the counts are widened after every 31 (31 * 8 = 248 <= 255).
#include <arm_neon.h>
#include <string.h>

#include "driver/tile.h"
#include "driver/unroll.h"
#include "neon/lane_bits.h"

#if defined(_MSC_VER)
#pragma fp_contract(off)
#endif

namespace dirnet {

namespace {

constexpr int kLanes = 16;
constexpr int kSharedGroupChannels = 16;
constexpr int kTilePixels = 6;  // 6 x 4 counts, 4 weights and 4 temporaries: all 32 registers
constexpr int kStepsPerByte = 31;
constexpr int kFlushesPerHalf = 65535 / (kStepsPerByte * 8);

// The widened counts of P pixels by V registers of lanes: 16 bits while they suffice, 32 once they do not.
template <int P, int V>
struct WideCounts {
  alignas(16) uint16_t half[P][V * kLanes];
  alignas(16) uint32_t word[P][V * kLanes];  // meaningful once spilled
  int flushes = 0;  // since `half` was last empty; while it is 0, `half` holds nothing
  bool spilled = false;

  // Not inline: beside the loop that counts it would cost that loop its registers.
  DIRNET_NOINLINE void add(const uint8_t* bytes) {
    if (flushes == kFlushesPerHalf) spill();
    uint16_t* sums = &half[0][0];
    if (flushes++ == 0) {
      for (int p = 0; p < P; ++p) {
        DIRNET_UNROLL
        for (int v = 0; v < V; ++v) {
          const uint8x16_t more = vld1q_u8(bytes + v * kLanes);
          vst1q_u16(sums + v * kLanes, vmovl_u8(vget_low_u8(more)));
          vst1q_u16(sums + v * kLanes + 8, vmovl_high_u8(more));
        }
        bytes += V * kLanes;
        sums += V * kLanes;
      }
      return;
    }
    for (int p = 0; p < P; ++p) {
      uint8x16_t more[V];
      uint16x8_t low[V], high[V];
      DIRNET_UNROLL
      for (int v = 0; v < V; ++v) {
        more[v] = vld1q_u8(bytes + v * kLanes);
        low[v] = vld1q_u16(sums + v * kLanes);
        high[v] = vld1q_u16(sums + v * kLanes + 8);
      }
      DIRNET_UNROLL
      for (int v = 0; v < V; ++v) {
        vst1q_u16(sums + v * kLanes, vaddw_u8(low[v], vget_low_u8(more[v])));
        vst1q_u16(sums + v * kLanes + 8, vaddw_high_u8(high[v], more[v]));
      }
      bytes += V * kLanes;
      sums += V * kLanes;
    }
  }

  DIRNET_INLINE void add(const uint8x16_t (&counts)[P][V]) {
    alignas(16) uint8_t bytes[P * V * kLanes];
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) {
      DIRNET_UNROLL
      for (int v = 0; v < V; ++v) vst1q_u8(bytes + (p * V + v) * kLanes, counts[p][v]);
    }
    add(bytes);
  }

  // dot_max - 2 * count of 16 channels of one pixel, as floats.
  DIRNET_INLINE void dots(int p, int channel, int32_t dot_max, float32x4_t (&dot)[4]) const {
    const uint16x8_t low = vld1q_u16(&half[p][channel]);
    const uint16x8_t high = vld1q_u16(&half[p][channel + 8]);
    const uint32x4_t most = vdupq_n_u32(static_cast<uint32_t>(dot_max));
    uint32x4_t sum[4] = {vsubw_u16(vsubw_u16(most, vget_low_u16(low)), vget_low_u16(low)),
                         vsubw_high_u16(vsubw_high_u16(most, low), low),
                         vsubw_u16(vsubw_u16(most, vget_low_u16(high)), vget_low_u16(high)),
                         vsubw_high_u16(vsubw_high_u16(most, high), high)};
    DIRNET_UNROLL
    for (int q = 0; q < 4; ++q) {
      if (spilled) sum[q] = vsubq_u32(sum[q], vshlq_n_u32(vld1q_u32(&word[p][channel + q * 4]), 1));
      dot[q] = vcvtq_f32_s32(vreinterpretq_s32_u32(sum[q]));
    }
  }

 private:
  void spill() {
    for (int p = 0; p < P; ++p) {
      for (int i = 0; i < V * kLanes; ++i) word[p][i] = half[p][i] + (spilled ? word[p][i] : 0);
    }
    flushes = 0;
    spilled = true;
  }
};

// The steps of dirnet::Epilogue for 16 channels, whose constants are loaded once for all pixels.
struct Finish {
  float32x4_t scale[4], bias[4], slope[4], threshold[4], clip_min, clip_max;
  bool has_clip, has_slope, has_bits;

  DIRNET_INLINE Finish(const BlockEpilogue& e, int channel)
      : clip_min(vdupq_n_f32(e.clip_min)),
        clip_max(vdupq_n_f32(e.clip_max)),
        has_clip(e.has_clip),
        has_slope(e.has_slope),
        has_bits(e.bits != nullptr) {
    DIRNET_UNROLL
    for (int q = 0; q < 4; ++q) {
      scale[q] = vld1q_f32(e.scale + channel + q * 4);
      bias[q] = vld1q_f32(e.bias + channel + q * 4);
      slope[q] = vld1q_f32(e.slope + channel + q * 4);
      threshold[q] = vld1q_f32(e.threshold + channel + q * 4);
    }
  }

  // `residual` and `y` have 16 floats each or are null; returns the lanes' bits, or nothing where none are
  // wanted.
  DIRNET_INLINE uint8x16_t pixel(float32x4_t (&v)[4], const float* residual, float* y) const {
    DIRNET_UNROLL
    for (int q = 0; q < 4; ++q) v[q] = vaddq_f32(vmulq_f32(v[q], scale[q]), bias[q]);
    if (residual != nullptr) {
      DIRNET_UNROLL
      for (int q = 0; q < 4; ++q) v[q] = vaddq_f32(v[q], vld1q_f32(residual + q * 4));
    }
    if (has_clip) {
      // Comparisons, not vmax and vmin: those would make every NaN the default one and order the two zeros.
      DIRNET_UNROLL
      for (int q = 0; q < 4; ++q) {
        v[q] = vbslq_f32(vcltq_f32(v[q], clip_min), clip_min, v[q]);
        v[q] = vbslq_f32(vcgtq_f32(v[q], clip_max), clip_max, v[q]);
      }
    }
    if (has_slope) {
      DIRNET_UNROLL
      for (int q = 0; q < 4; ++q) v[q] = vbslq_f32(vcltzq_f32(v[q]), vmulq_f32(slope[q], v[q]), v[q]);
    }
    if (y != nullptr) {
      DIRNET_UNROLL
      for (int q = 0; q < 4; ++q) vst1q_f32(y + q * 4, v[q]);
    }
    if (!has_bits) return vdupq_n_u8(0);
    uint32x4_t set[4];
    DIRNET_UNROLL
    for (int q = 0; q < 4; ++q) set[q] = vcgeq_f32(v[q], threshold[q]);
    return lane_bits(set);
  }
};

template <int P, int V>
void finish_tile(const ConvTile& t, const WideCounts<P, V>& counts) {
  const BlockEpilogue& e = *t.epilogue;
  // In variables of their own: the compiler cannot know that what is written changes none of them.
  const float* const residuals = e.residual;
  float* const outputs = e.y;
  const int32_t dot_max = t.dot_max;
  int64_t offsets[P];
  DIRNET_UNROLL
  for (int p = 0; p < P; ++p) offsets[p] = t.output[p] * e.pixel_floats;
  uint8x16_t lanes[P][V];
  DIRNET_UNROLL
  for (int v = 0; v < V; ++v) {
    const int channel = v * kLanes;
    const Finish finish(e, channel);
    // Only the last register of a block can be partly empty.
    const int left = e.channels - channel;
    for (int p = 0; p < P; ++p) {
      float32x4_t values[4];
      counts.dots(p, channel, dot_max, values);
      const float* residual = residuals != nullptr ? residuals + offsets[p] + channel : nullptr;
      float* y = outputs != nullptr ? outputs + offsets[p] + channel : nullptr;
      if (v < V - 1 || left >= kLanes) {
        lanes[p][v] = finish.pixel(values, residual, y);
        continue;
      }
      float r[kLanes] = {};
      float out[kLanes];
      if (residual != nullptr) memcpy(r, residual, static_cast<size_t>(left) * sizeof(float));
      lanes[p][v] = finish.pixel(values, residual != nullptr ? r : nullptr, out);
      if (y != nullptr) memcpy(y, out, static_cast<size_t>(left) * sizeof(float));
    }
  }
  if (e.bits == nullptr) return;
  const uint64_t mask = ~uint64_t{0} >> (64 - e.channels);
  for (int p = 0; p < P; ++p) store_bits(e, t.output[p], join_bits<V>(lanes[p]) & mask);
}

uint8x16_t broadcast_word(const uint8_t* p) {
  uint32_t word;
  memcpy(&word, p, sizeof(word));
  return vreinterpretq_u8_u32(vdupq_n_u32(word));
}

template <int P, int V>
DIRNET_INLINE void clear(uint8x16_t (&count)[P][V]) {
  DIRNET_UNROLL
  for (int p = 0; p < P; ++p) {
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) count[p][v] = vdupq_n_u8(0);
  }
}

// The byte at `p` in all lanes; `p` moves on.
DIRNET_INLINE uint8x16_t broadcast_next(const uint8_t*& p) {
#if defined(__GNUC__)
  // One instruction; compilers make two of the intrinsic, to save an addition to the pointer that is free
  // here.
  uint8x16_t r;
  __asm__("ld1r {%0.16b}, [%1], #1" : "=w"(r), "+r"(p) : "m"(*p));
  return r;
#else
  return vld1q_dup_u8(p++);
#endif
}

template <int V>
DIRNET_INLINE void load_weights(const uint8_t* p, uint8x16_t (&w)[V]) {
  if constexpr (V == 4) {
    const uint8x16x4_t all = vld1q_u8_x4(p);
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) w[v] = all.val[v];
  } else {
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) w[v] = vld1q_u8(p + v * kLanes);
  }
}

// One byte of every pixel against one of every channel. All the exclusive-ors of a pixel, then its popcounts,
// then its additions: processors that keep the order find something to do while a result is under way. The
// next pixel's byte is fetched meanwhile.
template <bool kFirst, int P, int V>
DIRNET_INLINE void byte_step(const uint8_t*& weights, const uint8_t* (&input)[P], uint8x16_t (&count)[P][V]) {
  uint8x16_t w[V];
  load_weights(weights, w);
  weights += V * kLanes;
  uint8x16_t a = broadcast_next(input[0]);
  DIRNET_UNROLL
  for (int p = 0; p < P; ++p) {
    uint8x16_t x[V];
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) x[v] = veorq_u8(a, w[v]);
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) x[v] = vcntq_u8(x[v]);
    count[p][0] = kFirst ? x[0] : vaddq_u8(count[p][0], x[0]);
    if (p + 1 < P) a = broadcast_next(input[p + 1 < P ? p + 1 : p]);
    DIRNET_UNROLL
    for (int v = 1; v < V; ++v) count[p][v] = kFirst ? x[v] : vaddq_u8(count[p][v], x[v]);
  }
}

template <int P, int V>
void conv_tile_px16v(const ConvTile& t) {
  WideCounts<P, V> wide;
  uint8x16_t count[P][V];
  clear(count);
  int64_t room = kStepsPerByte;
  for (int64_t row = 0; row < t.rows; ++row) {
    for (int64_t tap = 0; tap < t.taps; ++tap) {
      const int64_t at = row * t.input_row_bytes + tap * t.input_tap_bytes;
      const uint8_t* weights = t.weights + row * t.weight_row_bytes + tap * t.weight_tap_bytes;
      const uint8_t* input[P];
      DIRNET_UNROLL
      for (int p = 0; p < P; ++p) input[p] = t.input[p] + at;
      int64_t left = t.units;
      while (left > 0) {
        const int64_t steps = left < room ? left : room;
        const uint8_t* const stop = weights + steps * V * kLanes;
        if (room == kStepsPerByte) byte_step<true>(weights, input, count);
        while (weights != stop) byte_step<false>(weights, input, count);
        left -= steps;
        room -= steps;
        if (room == 0) {
          wide.add(count);
          room = kStepsPerByte;
        }
      }
    }
  }
  // Nothing since the last time that the counts were widened: they are in there already.
  if (room == kStepsPerByte) clear(count);
  wide.add(count);
  finish_tile(t, wide);
}

// Blocks of several groups: every lane has a byte of input of its own, which a table look-up fetches from the
// register's word.
template <int P, int V>
void shared_tile_px16v(const ConvTile& t) {
  const SharedLanes& lanes = *t.shared;
  WideCounts<P, V> wide;
  uint8x16_t count[P][V];
  clear(count);
  const uint8_t* input[P];
  DIRNET_UNROLL
  for (int p = 0; p < P; ++p) input[p] = t.input[p];
  int64_t room = kStepsPerByte;
  for (int64_t row = 0; row < t.rows; ++row) {
    for (int64_t tap = 0; tap < t.taps; ++tap) {
      const int64_t at = row * t.input_row_bytes + tap * t.input_tap_bytes;
      const uint8_t* weights = t.weights + row * t.weight_row_bytes + tap * t.weight_tap_bytes;
      for (int64_t step = 0; step < lanes.steps; ++step) {
        const uint8_t* positions = lanes.position + step * kBlockChannels;
        DIRNET_UNROLL
        for (int v = 0; v < V; ++v) {
          const uint8x16_t mask = vld1q_u8(lanes.mask + v * kLanes);
          const uint8x16_t w = vld1q_u8(weights + v * kLanes);
          const uint8x16_t position = vld1q_u8(positions + v * kLanes);
          DIRNET_UNROLL
          for (int p = 0; p < P; ++p) {
            const uint8x16_t a = vqtbl1q_u8(broadcast_word(input[p] + at + lanes.input_offset[v]), position);
            count[p][v] = vaddq_u8(count[p][v], vcntq_u8(vandq_u8(veorq_u8(a, w), mask)));
          }
        }
        weights += kBlockChannels;
        if (--room == 0) {
          wide.add(count);
          clear(count);
          room = kStepsPerByte;
        }
      }
    }
  }
  wide.add(count);
  finish_tile(t, wide);
}

using TileFunction = void (*)(const ConvTile&);

template <int P>
struct Row {
  static constexpr TileFunction conv[4] = {conv_tile_px16v<P, 1>, conv_tile_px16v<P, 2>,
                                           conv_tile_px16v<P, 3>, conv_tile_px16v<P, 4>};
  static constexpr TileFunction shared[4] = {shared_tile_px16v<P, 1>, shared_tile_px16v<P, 2>,
                                             shared_tile_px16v<P, 3>, shared_tile_px16v<P, 4>};
};

constexpr const TileFunction* kConvTiles[kTilePixels] = {Row<1>::conv, Row<2>::conv, Row<3>::conv,
                                                         Row<4>::conv, Row<5>::conv, Row<6>::conv};
constexpr const TileFunction* kSharedTiles[kTilePixels] = {Row<1>::shared, Row<2>::shared, Row<3>::shared,
                                                           Row<4>::shared, Row<5>::shared, Row<6>::shared};

void conv_tile(const ConvTile& t) { kConvTiles[t.pixels - 1][(t.epilogue->channels - 1) / kLanes](t); }
void shared_tile(const ConvTile& t) { kSharedTiles[t.pixels - 1][(t.epilogue->channels - 1) / kLanes](t); }

DIRNET_INLINE uint8x16_t at_least(const float* x, const float* threshold) {
  uint32x4_t set[4];
  DIRNET_UNROLL
  for (int q = 0; q < 4; ++q) set[q] = vcgeq_f32(vld1q_f32(x + q * 4), vld1q_f32(threshold + q * 4));
  return lane_bits(set);
}

void binarize(const float* x, int64_t pixels, int64_t channels, const float* threshold, uint64_t* bits) {
  for (int64_t p = 0; p < pixels; ++p) {
    int64_t first = 0;
    for (; first + 64 <= channels; first += 64) {
      uint8x16_t lanes[4];
      DIRNET_UNROLL
      for (int v = 0; v < 4; ++v) lanes[v] = at_least(x + first + v * kLanes, threshold + first + v * kLanes);
      *bits++ = join_bits(lanes);
    }
    if (first < channels) {
      uint64_t word = 0;
      int64_t i = first;
      for (; i + kLanes <= channels; i += kLanes) {
        const uint8x16_t lanes[1] = {at_least(x + i, threshold + i)};
        word |= join_bits(lanes) << (i - first);
      }
      for (; i < channels; ++i) word |= static_cast<uint64_t>(x[i] >= threshold[i]) << (i - first);
      *bits++ = word;
    }
    x += channels;
  }
}

}  // namespace

const Kernels kNeonKernels = {1,       kLanes,  kTilePixels, kSharedGroupChannels, conv_tile,
                              nullptr, nullptr, nullptr,     shared_tile,          binarize};

}  // namespace dirnet
