// Comparison results of lanes as bits of a word.
#ifndef DIRNET_SRC_NEON_LANE_BITS_H_
#define DIRNET_SRC_NEON_LANE_BITS_H_

#include <arm_neon.h>
#include <stdint.h>

#include "driver/unroll.h"

namespace dirnet {

namespace {

// The low kBits bits of `a`, above them those of `b`.
template <int kBits>
DIRNET_INLINE uint32x4_t insert(uint32x4_t a, uint32x4_t b) {
#if defined(__GNUC__) && !defined(__clang__)
  // As vsliq_n_u32, for which GCC copies `a` first.
  __asm__("sli %0.4s, %1.4s, %2" : "+w"(a) : "w"(b), "n"(kBits));
  return a;
#else
  return vsliq_n_u32(a, b, kBits);
#endif
}

// Lane l of four comparison results, a nibble each: bits 4 i to 4 i + 3 are those of set[i], and so are the
// bits above the last.
DIRNET_INLINE uint32x4_t join_nibbles(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
  return insert<8>(insert<4>(a, b), insert<4>(c, d));
}

// The word whose bit 16 v + 4 i + l is lane l of nibble i of four[v].
template <int V>
DIRNET_INLINE uint64_t word_of(const uint32x4_t (&four)[V]) {
  static const uint32_t kLaneBits[4] = {0x11111111, 0x22222222, 0x44444444, 0x88888888};
  const uint32x4_t lanes = vld1q_u32(kLaneBits);
  const uint32x4_t none = vdupq_n_u32(0);
  const uint32x4_t low = insert<16>(four[0], V > 1 ? four[V > 1 ? 1 : 0] : none);
  const uint32x4_t high = V > 2 ? insert<16>(four[V > 2 ? 2 : 0], V > 3 ? four[V > 3 ? 3 : 0] : none) : none;
  const uint32x4_t pairs = vpaddq_u32(vandq_u32(low, lanes), vandq_u32(high, lanes));
  return vgetq_lane_u64(vreinterpretq_u64_u32(vpaddq_u32(pairs, pairs)), 0);
}

}  // namespace

}  // namespace dirnet

#endif  // DIRNET_SRC_NEON_LANE_BITS_H_
