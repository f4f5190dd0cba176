#include <arm_neon.h>

#include "peak.h"

namespace dirnet {
namespace bench {

// eor, cnt, add: three operations for 128 multiply-adds (16 channels, 8 input channels), on 16 independent
// sums.
int64_t peak_neon(int64_t steps, volatile uint8_t* sink) {
  constexpr int kSums = 16;
  uint8x16_t sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = vdupq_n_u8(static_cast<uint8_t>(i));
  uint8x16_t w = vdupq_n_u8(0x5C);
  const uint8x16_t a = vdupq_n_u8(0x36);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      __asm__("" : "+w"(w));  // a new value as far as the compiler knows: the eor cannot move out of the loop
      sums[i] = vaddq_u8(sums[i], vcntq_u8(veorq_u8(a, w)));
    }
  }
  for (int i = 1; i < kSums; ++i) sums[0] = vaddq_u8(sums[0], sums[i]);
  *sink = vgetq_lane_u8(sums[0], 0);
  return steps * kSums * 128;
}

}  // namespace bench
}  // namespace dirnet
