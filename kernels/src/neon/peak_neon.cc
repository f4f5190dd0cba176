#include <arm_neon.h>

#include "driver/peak_loops.h"

namespace dirnet {

namespace {

constexpr int kSums = 16;

// eor, cnt, add: three operations for 128 multiply-adds, 16 channels by 8 input channels.
int64_t binary(int64_t steps, volatile uint8_t* sink) {
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

// smull, sadalp: 8 multiply-adds, without the extensions that multiply bytes in fours.
int64_t int8(int64_t steps, volatile uint8_t* sink) {
  int32x4_t sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = vdupq_n_s32(i);
  int8x8_t w = vdup_n_s8(3);
  const int8x8_t a = vdup_n_s8(5);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      __asm__("" : "+w"(w));
      sums[i] = vpadalq_s16(sums[i], vmull_s8(a, w));
    }
  }
  for (int i = 1; i < kSums; ++i) sums[0] = vaddq_s32(sums[0], sums[i]);
  *sink = static_cast<uint8_t>(vgetq_lane_s32(sums[0], 0));
  return steps * kSums * 8;
}

// A fused multiply-add of 4 floats.
int64_t float32(int64_t steps, volatile uint8_t* sink) {
  float32x4_t sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = vdupq_n_f32(static_cast<float>(i));
  float32x4_t w = vdupq_n_f32(0.5F);
  const float32x4_t a = vdupq_n_f32(1e-6F);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      __asm__("" : "+w"(w));
      sums[i] = vfmaq_f32(sums[i], a, w);
    }
  }
  for (int i = 1; i < kSums; ++i) sums[0] = vaddq_f32(sums[0], sums[i]);
  *sink = static_cast<uint8_t>(vgetq_lane_u32(vreinterpretq_u32_f32(sums[0]), 0));
  return steps * kSums * 4;
}

}  // namespace

const PeakLoops kNeonPeaks = {binary, int8, float32};

}  // namespace dirnet
