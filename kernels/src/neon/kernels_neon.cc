// NEON: a lane is one byte of one output channel's weights, 16 channels to a register.
//
// Per byte of the pixel and register: count += cnt(w eor dup(a)), three operations for 16 * 8 = 128
// multiply-adds, and the byte counts are already per channel: no pairwise sums. With the loads of a tile of 6
// pixels by 4 registers that is 79 vector instructions for 24 times 128. A byte step adds at most 8 to a
// byte, so the counts are widened after every 31 (31 * 8 = 248 <= 255).
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "driver/tile.h"
#include "driver/unroll.h"
#include "neon/counts.h"
#include "neon/finish.h"
#include "neon/lane_bits.h"

#if defined(_MSC_VER)
#pragma fp_contract(off)
#endif

namespace dirnet {

namespace {

constexpr int kSharedGroupChannels = 16;
constexpr int kTilePixels = 6;  // 6 x 4 counts, 4 weights and 4 temporaries: all 32 registers
constexpr int kStepsPerByte = 31;

// The memory of a tile's counts.
template <int P, int V>
struct Memory {
  static constexpr int kSize = P * V * kLanes;
  alignas(16) uint8_t bytes[kByteSums * kSize];
  alignas(16) uint16_t halves[kSize];
  alignas(16) uint32_t words[kSize];

  Counts counts(int32_t dot_max) {
    return {bytes, halves, words, kSize, V * kLanes, dot_max > kMostInHalves};
  }
};

// Keeps the sums of bytes apart from those that come.
template <int P, int V>
DIRNET_INLINE void put_aside(const uint8x16_t (&count)[P][V], Counts* counts) {
  if (counts->byte_sums == kByteSums) counts->fold();
  uint8_t* to = counts->bytes + counts->byte_sums++ * counts->size;
  DIRNET_UNROLL
  for (int p = 0; p < P; ++p) {
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) vst1q_u8(to + (p * V + v) * kLanes, count[p][v]);
  }
}

template <int V>
DIRNET_INLINE void finish_tile(const ConvTile& t, Counts* counts) {
  if (counts->folded || counts->wide) counts->fold();
  if (t.epilogue->channels == V * kLanes) {
    finish_pixels<V, false>(t, *counts);
  } else {
    finish_pixels<V, true>(t, *counts);
  }
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

// One byte of every pixel against one of every channel. All the exclusive-ors of a pixel, then its popcounts,
// then its additions: processors that keep the order find something to do while a result is under way. The
// next pixel's byte is fetched meanwhile.
template <bool kFirst, int P, int V>
DIRNET_INLINE void byte_step(const uint8_t*& weights, const uint8_t* (&input)[P], uint8x16_t (&count)[P][V]) {
  uint8x16_t w[V];
  load_bytes(weights, w);
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
  Memory<P, V> memory;
  Counts counts = memory.counts(t.dot_max);
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
          put_aside(count, &counts);
          room = kStepsPerByte;
        }
      }
    }
  }
  if (room < kStepsPerByte) {
    put_aside(count, &counts);
  } else if (counts.byte_sums == 0) {  // no tap at all
    clear(count);
    put_aside(count, &counts);
  }
  finish_tile<V>(t, &counts);
}

// Blocks of several groups: every lane has a byte of input of its own, which a table look-up fetches from the
// register's word.
template <int P, int V>
void shared_tile_px16v(const ConvTile& t) {
  const SharedLanes& lanes = *t.shared;
  Memory<P, V> memory;
  Counts counts = memory.counts(t.dot_max);
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
          put_aside(count, &counts);
          clear(count);
          room = kStepsPerByte;
        }
      }
    }
  }
  put_aside(count, &counts);
  finish_tile<V>(t, &counts);
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

// The bits of 4 * Q floats.
template <int Q>
DIRNET_INLINE uint64_t at_least(const float* x, const float* threshold) {
  uint32x4_t set[Q];
  DIRNET_UNROLL
  for (int q = 0; q < Q; q += 4) {
    const float32x4x4_t a = vld1q_f32_x4(x + q * 4);
    const float32x4x4_t b = vld1q_f32_x4(threshold + q * 4);
    DIRNET_UNROLL
    for (int i = 0; i < 4; ++i) set[q + i] = vcgeq_f32(a.val[i], b.val[i]);
  }
  return word_of(set);
}

void binarize(const float* x, int64_t pixels, int64_t channels, const float* threshold, uint64_t* bits) {
  for (int64_t p = 0; p < pixels; ++p) {
    int64_t first = 0;
    for (; first + 64 <= channels; first += 64) *bits++ = at_least<16>(x + first, threshold + first);
    if (first < channels) {
      uint64_t word = 0;
      int64_t i = first;
      for (; i + kLanes <= channels; i += kLanes) word |= at_least<4>(x + i, threshold + i) << (i - first);
      if (i < channels) {
        const size_t bytes = static_cast<size_t>(channels - i) * sizeof(float);
        float last[kLanes] = {};
        float unreached[kLanes];
        for (float& limit : unreached) limit = NAN;
        memcpy(last, x + i, bytes);
        memcpy(unreached, threshold + i, bytes);
        word |= at_least<4>(last, unreached) << (i - first);
      }
      *bits++ = word;
    }
    x += channels;
  }
}

}  // namespace

const Kernels kNeonKernels = {1, kLanes, kTilePixels, kSharedGroupChannels, conv_tile, shared_tile, binarize};

}  // namespace dirnet
