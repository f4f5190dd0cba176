// Comparison results of lanes as bits of a word.
#ifndef DIRNET_SRC_NEON_LANE_BITS_H_
#define DIRNET_SRC_NEON_LANE_BITS_H_

#include <arm_neon.h>
#include <stdint.h>

#include "driver/unroll.h"

namespace dirnet {

namespace {

// Lane l of Q comparison results, a nibble each: bits 4 q to 4 q + 3 are those of set[q]. Above them is what is
// left of the last.
template <int Q>
DIRNET_INLINE uint32x4_t join_nibbles(const uint32x4_t* set) {
  if constexpr (Q == 1) {
    return set[0];
  } else {
    constexpr int kHalf = Q > 4 ? 4 : Q > 2 ? 2 : 1;
    return vsliq_n_u32(join_nibbles<kHalf>(set), join_nibbles<Q - kHalf>(set + kHalf), 4 * kHalf);
  }
}

// The word whose bit 4 q + l is lane l of comparison result q.
template <int Q>
DIRNET_INLINE uint64_t word_of(const uint32x4_t (&set)[Q]) {
  static const uint32_t kLaneBits[4] = {0x11111111, 0x22222222, 0x44444444, 0x88888888};
  constexpr int kLow = Q < 8 ? Q : 8;
  const uint32x4_t lanes = vld1q_u32(kLaneBits);
  const uint32x4_t low = vandq_u32(join_nibbles<kLow>(set), lanes);
  uint32x4_t high = vdupq_n_u32(0);
  if constexpr (Q > 8) high = vandq_u32(join_nibbles<Q - 8>(set + 8), lanes);
  const uint32x4_t pairs = vpaddq_u32(low, high);
  const uint64_t word = vgetq_lane_u64(vreinterpretq_u64_u32(vpaddq_u32(pairs, pairs)), 0);
  return Q % 8 == 0 ? word : word & ~uint64_t{0} >> (64 - 4 * Q);
}

}  // namespace

}  // namespace dirnet

#endif  // DIRNET_SRC_NEON_LANE_BITS_H_
