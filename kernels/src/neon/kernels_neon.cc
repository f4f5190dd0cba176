// NEON: a lane is one byte of one output channel's weights, 16 channels to a register.
//
// Per byte of the pixel and register: count += cnt(w eor dup(a)), three operations for 16 * 8 = 128
// multiply-adds, and the byte counts are already per channel: no pairwise sums. With the loads of a tile of 5
// pixels by 4 registers, two bytes at a time, that is 127 vector instructions for 40 times 128. A byte step
// adds at most 8 to a byte, so after every 31 (31 * 8 = 248 <= 255) new sums begin.
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "driver/tile.h"
#include "driver/unroll.h"
#include "neon/byte_steps.h"
#include "neon/counts.h"
#include "neon/finish.h"
#include "neon/lane_bits.h"
#include "neon/loads.h"

#if defined(_MSC_VER)
#pragma fp_contract(off)
#endif

namespace dirnet {

namespace {

constexpr int kSharedGroupChannels = 16;
constexpr int kTilePixels = 5;  // 5 x 4 counts, 2 x 4 weights and 4 temporaries: all 32 registers
constexpr int kStepsPerByte = 31;

template <int P, int V>
DIRNET_INLINE void clear(uint8x16_t (&count)[P][V]) {
  DIRNET_UNROLL
  for (int p = 0; p < P; ++p) {
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) count[p][v] = vdupq_n_u8(0);
  }
}

// A tile's counts and their memory.
template <int P, int V>
struct TileCounts {
  static constexpr int kSize = P * V * kLanes;
  alignas(16) uint8_t bytes[kByteSums * kSize];
  alignas(16) uint16_t halves[kSize];
  alignas(16) uint32_t words[kSize];
  Counts counts;
  uint8_t* next = bytes;  // where the next sums of bytes go

  DIRNET_INLINE explicit TileCounts(const ConvTile& t)
      : counts{bytes, halves, words, P, t.dot_max > kMostInHalves} {}

  // Keeps the sums of bytes apart from those that come.
  DIRNET_INLINE void put_aside(const uint8x16_t (&count)[P][V]) {
    if (next == bytes + kByteSums * V * kLanes) {
      fold<V>(&counts, kByteSums);
      next = bytes;
    }
    uint8_t* const to = next;
    next += V * kLanes;
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) {
      DIRNET_UNROLL
      for (int v = 0; v < V; ++v) vst1q_u8(to + (p * kByteSums * V + v) * kLanes, count[p][v]);
    }
  }

  DIRNET_INLINE void finish(const ConvTile& t) {
    // What adds them up wants two at least.
    while (next < bytes + 2 * V * kLanes) {
      uint8x16_t none[P][V];
      clear(none);
      put_aside(none);
    }
    const int sums = static_cast<int>(next - bytes) / (V * kLanes);
    if (counts.folded || counts.wide || twice(t)) fold<V>(&counts, sums);
    if (t.epilogue->channels == V * kLanes) {
      finish_pixels<V, false>(t, counts, sums);
    } else {
      finish_pixels<V, true>(t, counts, sums);
    }
  }
};

// Goes through a tile's runs of input, and through the weights beside.
template <int P>
struct Walk {
  const uint8_t* weights;
  const uint8_t* input[P];
  int64_t left;  // in the run
  int64_t taps_left;

  DIRNET_INLINE explicit Walk(const ConvTile& t) : weights(t.weights), left(t.units), taps_left(t.taps) {
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) input[p] = t.input[p];
  }

  // Goes on to the next run where this one has come to its end.
  template <int V>
  DIRNET_INLINE void go_on(const ConvTile& t) {
    if (left > 0) return;
    left = t.units;
    int64_t input_gap = t.input_tap_bytes - t.units;
    int64_t weight_gap = t.weight_tap_bytes - t.units * V * kLanes;
    if (--taps_left == 0) {
      taps_left = t.taps;
      input_gap += t.input_row_bytes - t.taps * t.input_tap_bytes;
      weight_gap += t.weight_row_bytes - t.taps * t.weight_tap_bytes;
    }
    weights += weight_gap;
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) input[p] += input_gap;
  }
};

template <int P, int V>
void conv_tile_px16v(const ConvTile& t) {
  TileCounts<P, V> counts(t);
  Walk<P> walk(t);
  int64_t left = t.rows * t.taps * t.units;
  while (left > 0) {
    uint8x16_t count[P][V];
    int64_t room = left < kStepsPerByte ? left : kStepsPerByte;
    left -= room;
    walk.template go_on<V>(t);
    byte_step<true>(walk.weights, walk.input, count);
    --walk.left;
    for (--room; room > 0;) {
      walk.template go_on<V>(t);
      const int64_t steps = walk.left < room ? walk.left : room;
      byte_steps(steps, walk.weights, walk.input, count);
      walk.left -= steps;
      room -= steps;
    }
    counts.put_aside(count);
  }
  counts.finish(t);
}

uint8x16_t broadcast_word(const uint8_t* p) {
  uint32_t word;
  memcpy(&word, p, sizeof(word));
  return vreinterpretq_u8_u32(vdupq_n_u32(word));
}

// Blocks of several groups: every lane has a byte of input of its own, which a table look-up fetches from the
// register's word.
template <int P, int V>
void shared_tile_px16v(const ConvTile& t) {
  const SharedLanes& lanes = *t.shared;
  TileCounts<P, V> counts(t);
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
          counts.put_aside(count);
          clear(count);
          room = kStepsPerByte;
        }
      }
    }
  }
  counts.put_aside(count);
  counts.finish(t);
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
                                                         Row<4>::conv, Row<5>::conv};
constexpr const TileFunction* kSharedTiles[kTilePixels] = {Row<1>::shared, Row<2>::shared, Row<3>::shared,
                                                           Row<4>::shared, Row<5>::shared};

void conv_tile(const ConvTile& t) { kConvTiles[t.pixels - 1][(t.epilogue->channels - 1) / kLanes](t); }
void shared_tile(const ConvTile& t) { kSharedTiles[t.pixels - 1][(t.epilogue->channels - 1) / kLanes](t); }

// The bits of 16 * V floats.
template <int V>
DIRNET_INLINE uint64_t at_least(const float*& x, const float*& threshold) {
  uint32x4_t four[V];
  DIRNET_UNROLL
  for (int v = 0; v < V; ++v) {
    const float32x4x4_t a = load_four(x);
    const float32x4x4_t b = load_four(threshold);
    four[v] = join_nibbles(vcgeq_f32(a.val[0], b.val[0]), vcgeq_f32(a.val[1], b.val[1]),
                           vcgeq_f32(a.val[2], b.val[2]), vcgeq_f32(a.val[3], b.val[3]));
  }
  return word_of(four);
}

// The bits of less than 64 floats.
uint64_t at_least(const float* x, const float* threshold, int64_t count) {
  uint64_t word = 0;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) word |= at_least<1>(x, threshold) << i;
  if (i == count) return word;
  const size_t bytes = static_cast<size_t>(count - i) * sizeof(float);
  float last[kLanes] = {};
  float unreached[kLanes];
  for (float& limit : unreached) limit = NAN;
  memcpy(last, x, bytes);
  memcpy(unreached, threshold, bytes);
  const float* from = last;
  const float* limits = unreached;
  return word | at_least<1>(from, limits) << i;
}

void binarize_words(const float* x, int64_t pixels, int64_t words, const float* threshold, uint64_t* bits) {
  for (; pixels > 0; --pixels) {
    const float* limits = threshold;
    for (int64_t left = words; left > 0; --left) *bits++ = at_least<4>(x, limits);
  }
}

void binarize(const float* x, int64_t pixels, int64_t channels, const float* threshold, uint64_t* bits) {
  const int64_t words = channels / 64;
  const int64_t rest = channels % 64;
  if (rest == 0) {
    binarize_words(x, pixels, words, threshold, bits);
    return;
  }
  for (; pixels > 0; --pixels) {
    binarize_words(x, 1, words, threshold, bits);
    x += words * 64;
    bits += words;
    *bits++ = at_least(x, threshold + words * 64, rest);
    x += rest;
  }
}

}  // namespace

const Kernels kNeonKernels = {1,         1,       kLanes,  kTilePixels, kSharedGroupChannels,
                              conv_tile, nullptr, nullptr, 1,           nullptr,
                              nullptr,   nullptr, nullptr, shared_tile, binarize};

}  // namespace dirnet
