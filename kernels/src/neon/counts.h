// What a tile has counted: bytes while they suffice, 16 bits for most sums, 32 for those of giants.
#ifndef DIRNET_SRC_NEON_COUNTS_H_
#define DIRNET_SRC_NEON_COUNTS_H_

#include <arm_neon.h>
#include <stdint.h>

#include "driver/unroll.h"
#include "neon/loads.h"

namespace dirnet {

namespace {

// Sums of bytes that lie apart until the end, or until one more comes: a 3x3 convolution of 128 channels has
// five.
constexpr int kByteSums = 5;
// Up to here twice a count fits into 16 bits.
constexpr int32_t kMostInHalves = 32767;

// The counts of some pixels by V registers of lanes: [pixel][sum][lane] in `bytes`, else [pixel][lane].
struct Counts {
  uint8_t* bytes;
  uint16_t* halves;
  uint32_t* words;
  int pixels;
  bool wide;            // sums go to `words`
  bool folded = false;  // `halves` or `words` hold sums
};

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

DIRNET_INLINE void store_sum(uint16_t* to, uint16x8_t more, bool folded) {
  vst1q_u16(to, folded ? vaddq_u16(vld1q_u16(to), more) : more);
}

DIRNET_INLINE void store_sum(uint32_t* to, uint16x8_t more, bool folded) {
  const uint32x4_t low = vmovl_u16(vget_low_u16(more));
  const uint32x4_t high = vmovl_high_u16(more);
  vst1q_u32(to, folded ? vaddq_u32(vld1q_u32(to), low) : low);
  vst1q_u32(to + 4, folded ? vaddq_u32(vld1q_u32(to + 4), high) : high);
}

// Adds up the sums of bytes, two at least. Not inline: beside the loop that counts it would cost that loop
// its registers.
template <int V>
DIRNET_NOINLINE void fold(Counts* counts, int sums) {
  const Counts c = *counts;
  for (int p = 0; p < c.pixels; ++p) {
    uint16x8_t sum[2 * V];
    add_up<V>(c.bytes + p * (kByteSums * V * kLanes), sums, sum);
    const int64_t first = static_cast<int64_t>(p) * V * kLanes;
    DIRNET_UNROLL
    for (int i = 0; i < 2 * V; ++i) {
      if (c.wide) {
        store_sum(c.words + first + i * 8, sum[i], c.folded);
      } else {
        store_sum(c.halves + first + i * 8, sum[i], c.folded);
      }
    }
  }
  counts->folded = true;
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
  const int64_t first = static_cast<int64_t>(pixel) * V * kLanes;
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
