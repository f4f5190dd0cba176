// Loads that move the pointer on, each one instruction: compilers would rather work out all the addresses
// before a loop, more of them than there are registers, or pay for an addition that is free here.
#ifndef DIRNET_SRC_NEON_LOADS_H_
#define DIRNET_SRC_NEON_LOADS_H_

#include <arm_neon.h>
#include <stdint.h>

#include "driver/unroll.h"

namespace dirnet {

namespace {

constexpr int kLanes = 16;

// The byte at `p` in all lanes.
DIRNET_INLINE uint8x16_t broadcast_next(const uint8_t*& p) {
#if defined(__GNUC__)
  uint8x16_t r;
  __asm__("ld1r {%0.16b}, [%1], #1" : "=w"(r), "+r"(p) : "m"(*p));
  return r;
#else
  return vld1q_dup_u8(p++);
#endif
}

// 64 bytes.
DIRNET_INLINE uint8x16x4_t load_four(const uint8_t*& p) {
  uint8x16x4_t r;
#if defined(__GNUC__) && !defined(__clang__)
  __asm__("ld1 {%S0.16b - %V0.16b}, [%1], #64"
          : "=w"(r), "+r"(p)
          : "m"(*reinterpret_cast<const uint8_t (*)[64]>(p)));
#else
  r = vld1q_u8_x4(p);
  p += 64;
#endif
  return r;
}

// 16 floats.
DIRNET_INLINE float32x4x4_t load_four(const float*& p) {
  float32x4x4_t r;
#if defined(__GNUC__) && !defined(__clang__)
  __asm__("ld1 {%S0.4s - %V0.4s}, [%1], #64"
          : "=w"(r), "+r"(p)
          : "m"(*reinterpret_cast<const float (*)[16]>(p)));
#else
  r = vld1q_f32_x4(p);
  p += 16;
#endif
  return r;
}

// V registers.
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

}  // namespace

}  // namespace dirnet

#endif  // DIRNET_SRC_NEON_LOADS_H_
