// What a tile has counted: bytes while they suffice, 16 bits for most sums, 32 for those of giants.
#ifndef DIRNET_SRC_NEON_COUNTS_H_
#define DIRNET_SRC_NEON_COUNTS_H_

#include <arm_neon.h>
#include <stdint.h>

#include "driver/unroll.h"
#include "neon/loads.h"

namespace dirnet {

namespace {

constexpr int kLanes = 16;
// Sums of bytes that lie apart until the end, or until one more comes: a 3x3 convolution of 128 channels has
// five.
constexpr int kByteSums = 5;
// Up to here twice a count fits into 16 bits.
constexpr int32_t kMostInHalves = 32767;

// The counts of some pixels by `channels` lanes: [pixel][sum][channel] in `bytes`, else [pixel][channel].
struct Counts {
  uint8_t* bytes;
  uint16_t* halves;
  uint32_t* words;
  int pixels;
  int channels;
  bool wide;            // sums go to `words`
  bool folded = false;  // `halves` or `words` hold sums

  // Adds up `sums` sums of bytes. Not inline: beside the loop that counts it would cost that loop its
  // registers.
  DIRNET_NOINLINE void fold(int sums) {
    for (int p = 0; p < pixels; ++p) {
      for (int i = 0; i < channels; i += kLanes) fold(p, i, sums);
    }
    folded = true;
  }

 private:
  DIRNET_INLINE void fold(int pixel, int channel, int sums) const {
    uint16x8_t low = vdupq_n_u16(0);
    uint16x8_t high = low;
    for (int k = 0; k < sums; ++k) {
      const uint8x16_t more = vld1q_u8(bytes + (pixel * kByteSums + k) * channels + channel);
      low = vaddw_u8(low, vget_low_u8(more));
      high = vaddw_high_u8(high, more);
    }
    const int first = pixel * channels + channel;
    if (wide) {
      add_words(words + first, low);
      add_words(words + first + 8, high);
    } else {
      add_halves(halves + first, low);
      add_halves(halves + first + 8, high);
    }
  }

  DIRNET_INLINE void add_halves(uint16_t* sum, uint16x8_t more) const {
    vst1q_u16(sum, folded ? vaddq_u16(vld1q_u16(sum), more) : more);
  }

  DIRNET_INLINE void add_words(uint32_t* sum, uint16x8_t more) const {
    const uint32x4_t low = vmovl_u16(vget_low_u16(more));
    const uint32x4_t high = vmovl_high_u16(more);
    vst1q_u32(sum, folded ? vaddq_u32(vld1q_u32(sum), low) : low);
    vst1q_u32(sum + 4, folded ? vaddq_u32(vld1q_u32(sum + 4), high) : high);
  }
};

// V registers; `p` moves on.
template <int V>
DIRNET_INLINE void load_next(const uint8_t*& p, uint8x16_t (&r)[V]) {
  if constexpr (V == 4) {
    const uint8x16x4_t all = load_four(p);
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) r[v] = all.val[v];
  } else {
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) r[v] = vld1q_u8(p + v * kLanes);
    p += V * kLanes;
  }
}

// A pixel's sums of bytes, two at least.
template <int V>
DIRNET_INLINE void add_up(const uint8_t* bytes, int sums, uint16x8_t (&sum)[2 * V]) {
  uint8x16_t a[V], b[V];
  load_next(bytes, a);
  load_next(bytes, b);
  DIRNET_UNROLL
  for (int v = 0; v < V; ++v) {
    sum[2 * v] = vaddl_u8(vget_low_u8(a[v]), vget_low_u8(b[v]));
    sum[2 * v + 1] = vaddl_high_u8(a[v], b[v]);
  }
  for (int left = sums - 2; left > 0; --left) {
    load_next(bytes, a);
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) {
      sum[2 * v] = vaddw_u8(sum[2 * v], vget_low_u8(a[v]));
      sum[2 * v + 1] = vaddw_high_u8(sum[2 * v + 1], a[v]);
    }
  }
}

// most - sum, as floats.
template <int V>
DIRNET_INLINE void subtract(uint32x4_t most, const uint16x8_t (&sum)[2 * V], float32x4_t (&dot)[4 * V]) {
  DIRNET_UNROLL
  for (int i = 0; i < 2 * V; ++i) {
    dot[2 * i] = vcvtq_f32_s32(vreinterpretq_s32_u32(vsubw_u16(most, vget_low_u16(sum[i]))));
    dot[2 * i + 1] = vcvtq_f32_s32(vreinterpretq_s32_u32(vsubw_high_u16(most, sum[i])));
  }
}

// most - count of a pixel as floats, or most - 2 * count, from halves or words: what add_up and subtract
// cannot do.
template <int V>
DIRNET_INLINE void load_dots(const Counts& counts, int pixel, uint32x4_t most, bool twice,
                             float32x4_t (&dot)[4 * V]) {
  const int64_t first = static_cast<int64_t>(pixel) * counts.channels;
  if (counts.wide) {
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) {
      DIRNET_UNROLL
      for (int q = 4 * v; q < 4 * v + 4; ++q) {
        const uint32x4_t count = vld1q_u32(counts.words + first + q * 4);
        const uint32x4_t once = vsubq_u32(most, count);
        dot[q] = vcvtq_f32_s32(vreinterpretq_s32_u32(twice ? vsubq_u32(once, count) : once));
      }
    }
    return;
  }
  uint16x8_t sum[2 * V];
  DIRNET_UNROLL
  for (int i = 0; i < 2 * V; ++i) {
    sum[i] = vld1q_u16(counts.halves + first + i * 8);
    if (twice) sum[i] = vaddq_u16(sum[i], sum[i]);
  }
  subtract<V>(most, sum, dot);
}

}  // namespace

}  // namespace dirnet

#endif  // DIRNET_SRC_NEON_COUNTS_H_
