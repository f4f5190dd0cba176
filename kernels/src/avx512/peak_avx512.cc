#include <immintrin.h>

#include "driver/peak_loops.h"

namespace dirnet {

namespace {

constexpr int kSums = 16;

uint8_t lowest_byte(__m512i r) { return static_cast<uint8_t>(_mm_cvtsi128_si32(_mm512_castsi512_si128(r))); }

// xor, vpopcntd, subtract: three operations for 512 multiply-adds.
int64_t binary(int64_t steps, volatile uint8_t* sink) {
  __m512i sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_set1_epi32(i);
  __m512i w = _mm512_set1_epi32(0x12345678);
  const __m512i a = _mm512_set1_epi32(0x0F1E2D3C);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      __asm__("" : "+v"(w));  // a new value as far as the compiler knows: the xor cannot move out of the loop
      sums[i] = _mm512_sub_epi32(sums[i], _mm512_popcnt_epi32(_mm512_xor_si512(a, w)));
    }
  }
  for (int i = 1; i < kSums; ++i) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
  *sink = lowest_byte(sums[0]);
  return steps * kSums * 512;
}

// vpdpbusd: 64 multiply-adds.
int64_t int8(int64_t steps, volatile uint8_t* sink) {
  __m512i sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_set1_epi32(i);
  const __m512i w = _mm512_set1_epi8(3);
  const __m512i a = _mm512_set1_epi8(5);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      __m512i sum = sums[i];  // an array's element would stay in memory
      __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w));
      sums[i] = sum;
    }
  }
  for (int i = 1; i < kSums; ++i) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
  *sink = lowest_byte(sums[0]);
  return steps * kSums * 64;
}

// A fused multiply-add of 16 floats.
int64_t float32(int64_t steps, volatile uint8_t* sink) {
  __m512 sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 w = _mm512_set1_ps(0.5F);
  const __m512 a = _mm512_set1_ps(1e-6F);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      __m512 sum = sums[i];
      __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w));
      sums[i] = sum;
    }
  }
  for (int i = 1; i < kSums; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  *sink = lowest_byte(_mm512_castps_si512(sums[0]));
  return steps * kSums * 16;
}

}  // namespace

const PeakLoops kAvx512Peaks = {binary, int8, float32};

}  // namespace dirnet
