// Comparison results of lanes as bits of a word.
#ifndef DIRNET_SRC_NEON_LANE_BITS_H_
#define DIRNET_SRC_NEON_LANE_BITS_H_

#include <arm_neon.h>
#include <stdint.h>

#include "driver/unroll.h"

namespace dirnet {

namespace {

// Four comparison results as 16 bytes, each with the bit of its lane among eight.
DIRNET_INLINE uint8x16_t lane_bits(const uint32x4_t (&set)[4]) {
  static const uint8_t kWeights[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_u32(set[0]), vreinterpretq_u16_u32(set[1]));
  const uint16x8_t high = vuzp1q_u16(vreinterpretq_u16_u32(set[2]), vreinterpretq_u16_u32(set[3]));
  const uint8x16_t bytes = vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high));
  return vandq_u8(bytes, vld1q_u8(kWeights));
}

// The word whose bits V registers of lane_bits hold, the first least significant.
template <int V>
DIRNET_INLINE uint64_t join_bits(const uint8x16_t (&lanes)[V]) {
  const uint8x16_t none = vdupq_n_u8(0);
  const uint8x16_t first = vpaddq_u8(lanes[0], V > 1 ? lanes[V > 1 ? 1 : 0] : none);
  const uint8x16_t second =
      V > 2 ? vpaddq_u8(lanes[V > 2 ? 2 : 0], V > 3 ? lanes[V > 3 ? 3 : 0] : none) : none;
  const uint8x16_t quarters = vpaddq_u8(first, second);
  return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(quarters, quarters)), 0);
}

}  // namespace

}  // namespace dirnet

#endif  // DIRNET_SRC_NEON_LANE_BITS_H_
