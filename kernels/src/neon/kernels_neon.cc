// NEON: a lane is one byte of one output channel's weights, 16 channels to a register.
//
// Per byte of the pixel and register: count += cnt(w eor dup(a)), three operations for 16 * 8 = 128
// multiply-adds, and the byte counts are already per channel: no pairwise sums. A byte step adds at most 8 to
// a byte, so the counts are widened after every 31 (31 * 8 = 248 <= 255).
#include <arm_neon.h>
#include <string.h>

#include "driver/tile.h"
#include "driver/unroll.h"

#if defined(_MSC_VER)
#pragma fp_contract(off)
#endif

namespace dirnet {

namespace {

constexpr int kLanes = 16;
constexpr int kSharedGroupChannels = 16;
constexpr int kTilePixels = 4;  // 4 x 4 counts + 4 weights + temporaries of 32 registers
constexpr int kStepsPerByte = 31;
constexpr int kFlushesPerHalf = 65535 / (kStepsPerByte * 8);

// The widened counts of P pixels by V registers of lanes: 16 bits while they suffice, 32 once they do not.
template <int P, int V>
struct WideCounts {
  uint16_t half[P][V * kLanes];
  uint32_t word[P][V * kLanes];  // meaningful once spilled
  int flushes = 0;               // since `half` was last empty; while it is 0, `half` holds nothing
  bool spilled = false;

  DIRNET_INLINE void add(const uint8x16_t (&bytes)[P][V]) {
    if (flushes == kFlushesPerHalf) spill();
    const bool first = flushes++ == 0;
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) {
      DIRNET_UNROLL
      for (int v = 0; v < V; ++v) {
        uint16_t* sums = &half[p][v * kLanes];
        uint16x8_t low = vmovl_u8(vget_low_u8(bytes[p][v]));
        uint16x8_t high = vmovl_high_u8(bytes[p][v]);
        if (!first) {
          low = vaddq_u16(vld1q_u16(sums), low);
          high = vaddq_u16(vld1q_u16(sums + 8), high);
        }
        vst1q_u16(sums, low);
        vst1q_u16(sums + 8, high);
      }
    }
  }

  // Four channels of one pixel.
  uint32x4_t sum(int p, int channel) const {
    const uint32x4_t low = vmovl_u16(vld1_u16(&half[p][channel]));
    return spilled ? vaddq_u32(low, vld1q_u32(&word[p][channel])) : low;
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

// One bit per lane of four comparison results, channel 0 least significant.
uint32_t sixteen_bits(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
  static const uint8_t kWeights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t low = vcombine_u16(vmovn_u32(a), vmovn_u32(b));
  const uint16x8_t high = vcombine_u16(vmovn_u32(c), vmovn_u32(d));
  const uint8x16_t lanes = vandq_u8(vcombine_u8(vmovn_u16(low), vmovn_u16(high)), vld1q_u8(kWeights));
  return vaddv_u8(vget_low_u8(lanes)) | static_cast<uint32_t>(vaddv_u8(vget_high_u8(lanes))) << 8;
}

// The steps of dirnet::Epilogue for 16 channels of one pixel; `residual` and `y` have 16 floats each or are
// null.
template <int P, int V>
uint32_t finish(const BlockEpilogue& e, const WideCounts<P, V>& counts, int p, int32_t dot_max, int channel,
                const float* residual, float* y) {
  uint32x4_t set[4];
  DIRNET_UNROLL
  for (int q = 0; q < 4; ++q) {
    const int at = channel + q * 4;
    const int32x4_t count = vreinterpretq_s32_u32(counts.sum(p, at));
    const int32x4_t dot = vsubq_s32(vdupq_n_s32(dot_max), vshlq_n_s32(count, 1));
    float32x4_t v = vmulq_f32(vcvtq_f32_s32(dot), vld1q_f32(e.scale + at));
    v = vaddq_f32(v, vld1q_f32(e.bias + at));
    if (residual != nullptr) v = vaddq_f32(v, vld1q_f32(residual + q * 4));
    if (e.has_clip) {
      // Comparisons, not vmax and vmin: those would make every NaN the default one and order the two zeros.
      const float32x4_t clip_min = vdupq_n_f32(e.clip_min);
      const float32x4_t clip_max = vdupq_n_f32(e.clip_max);
      v = vbslq_f32(vcltq_f32(v, clip_min), clip_min, v);
      v = vbslq_f32(vcgtq_f32(v, clip_max), clip_max, v);
    }
    if (e.has_slope) v = vbslq_f32(vcltzq_f32(v), vmulq_f32(vld1q_f32(e.slope + at), v), v);
    if (y != nullptr) vst1q_f32(y + q * 4, v);
    set[q] = vcgeq_f32(v, vld1q_f32(e.threshold + at));
  }
  return sixteen_bits(set[0], set[1], set[2], set[3]);
}

template <int P, int V>
void finish_pixel(const ConvTile& t, const WideCounts<P, V>& counts, int p) {
  const BlockEpilogue& e = *t.epilogue;
  const int64_t offset = t.output[p] * e.pixel_floats;
  const float* residual = e.residual != nullptr ? e.residual + offset : nullptr;
  float* y = e.y != nullptr ? e.y + offset : nullptr;
  uint64_t bits = 0;
  int channel = 0;
  for (; channel + kLanes <= e.channels; channel += kLanes) {
    const float* r = residual != nullptr ? residual + channel : nullptr;
    float* out = y != nullptr ? y + channel : nullptr;
    bits |= static_cast<uint64_t>(finish(e, counts, p, t.dot_max, channel, r, out)) << channel;
  }
  if (channel < e.channels) {
    const int left = e.channels - channel;
    float r[kLanes] = {};
    float out[kLanes];
    if (residual != nullptr) memcpy(r, residual + channel, static_cast<size_t>(left) * sizeof(float));
    const uint32_t set = finish(e, counts, p, t.dot_max, channel, residual != nullptr ? r : nullptr, out);
    if (y != nullptr) memcpy(y + channel, out, static_cast<size_t>(left) * sizeof(float));
    bits |= static_cast<uint64_t>(set & ((1U << left) - 1)) << channel;
  }
  if (e.bits != nullptr) store_bits(e, t.output[p], bits);
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

template <int P, int V>
void conv_tile_px16v(const ConvTile& t) {
  WideCounts<P, V> wide;
  uint8x16_t count[P][V];
  clear(count);
  const uint8_t* input[P];
  DIRNET_UNROLL
  for (int p = 0; p < P; ++p) input[p] = t.input[p];
  int64_t room = kStepsPerByte;
  for (int64_t row = 0; row < t.rows; ++row) {
    for (int64_t tap = 0; tap < t.taps; ++tap) {
      int64_t at = row * t.input_row_bytes + tap * t.input_tap_bytes;
      const int64_t last = at + t.units;
      const uint8_t* weights = t.weights + row * t.weight_row_bytes + tap * t.weight_tap_bytes;
      while (at < last) {
        const int64_t stop = last - at < room ? last : at + room;
        room -= stop - at;
        for (; at < stop; ++at) {
          uint8x16_t w[V];
          DIRNET_UNROLL
          for (int v = 0; v < V; ++v) w[v] = vld1q_u8(weights + v * kLanes);
          weights += V * kLanes;
          DIRNET_UNROLL
          for (int p = 0; p < P; ++p) {
            const uint8x16_t a = vld1q_dup_u8(input[p] + at);
            DIRNET_UNROLL
            for (int v = 0; v < V; ++v) count[p][v] = vaddq_u8(count[p][v], vcntq_u8(veorq_u8(a, w[v])));
          }
        }
        if (room == 0) {
          wide.add(count);
          clear(count);
          room = kStepsPerByte;
        }
      }
    }
  }
  wide.add(count);
  for (int p = 0; p < P; ++p) finish_pixel(t, wide, p);
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
  for (int p = 0; p < P; ++p) finish_pixel(t, wide, p);
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
                                                         Row<4>::conv};
constexpr const TileFunction* kSharedTiles[kTilePixels] = {Row<1>::shared, Row<2>::shared, Row<3>::shared,
                                                           Row<4>::shared};

void conv_tile(const ConvTile& t) { kConvTiles[t.pixels - 1][(t.epilogue->channels - 1) / kLanes](t); }
void shared_tile(const ConvTile& t) { kSharedTiles[t.pixels - 1][(t.epilogue->channels - 1) / kLanes](t); }

uint32x4_t at_least(const float* x, const float* threshold) {
  return vcgeq_f32(vld1q_f32(x), vld1q_f32(threshold));
}

void binarize(const float* x, int64_t pixels, int64_t channels, const float* threshold, uint64_t* bits) {
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t first = 0; first < channels; first += 64) {
      const int64_t past = channels - first < 64 ? channels - first : 64;
      const float* values = x + first;
      const float* limits = threshold + first;
      uint64_t word = 0;
      int64_t i = 0;
      for (; i + kLanes <= past; i += kLanes) {
        const uint32_t set = sixteen_bits(
            at_least(values + i, limits + i), at_least(values + i + 4, limits + i + 4),
            at_least(values + i + 8, limits + i + 8), at_least(values + i + 12, limits + i + 12));
        word |= static_cast<uint64_t>(set) << i;
      }
      for (; i < past; ++i) word |= static_cast<uint64_t>(values[i] >= limits[i]) << i;
      *bits++ = word;
    }
    x += channels;
  }
}

}  // namespace

const Kernels kNeonKernels = {1, kLanes, kTilePixels, kSharedGroupChannels, conv_tile, shared_tile, binarize};

}  // namespace dirnet
