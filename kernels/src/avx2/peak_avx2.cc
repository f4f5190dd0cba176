#include <immintrin.h>

#include "driver/peak_loops.h"

namespace dirnet {

namespace {

constexpr int kSums = 8;

uint8_t lowest_byte(__m256i r) { return static_cast<uint8_t>(_mm256_extract_epi8(r, 0)); }

// vpshufb, add: two operations for 128 multiply-adds, 32 channels by 4 input channels.
int64_t binary(int64_t steps, volatile uint8_t* sink) {
  __m256i sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm256_set1_epi8(static_cast<char>(i));
  __m256i w = _mm256_set1_epi8(3);
  const __m256i table = _mm256_set1_epi32(0x02010100);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 8
    for (int i = 0; i < kSums; ++i) {
      __asm__("" : "+x"(w));  // a new value as far as the compiler knows: the shuffle stays in the loop
      sums[i] = _mm256_add_epi8(sums[i], _mm256_shuffle_epi8(table, w));
    }
  }
  for (int i = 1; i < kSums; ++i) sums[0] = _mm256_add_epi8(sums[0], sums[i]);
  *sink = lowest_byte(sums[0]);
  return steps * kSums * 128;
}

// vpmaddubsw, vpmaddwd, add: 32 multiply-adds.
int64_t int8(int64_t steps, volatile uint8_t* sink) {
  __m256i sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm256_set1_epi32(i);
  __m256i w = _mm256_set1_epi8(3);
  const __m256i a = _mm256_set1_epi8(5);
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 8
    for (int i = 0; i < kSums; ++i) {
      __asm__("" : "+x"(w));
      sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, w), ones));
    }
  }
  for (int i = 1; i < kSums; ++i) sums[0] = _mm256_add_epi32(sums[0], sums[i]);
  *sink = lowest_byte(sums[0]);
  return steps * kSums * 32;
}

// A fused multiply-add of 8 floats; two of them begin in a cycle and each takes four or five.
int64_t float32(int64_t steps, volatile uint8_t* sink) {
  constexpr int kFloatSums = 12;
  __m256 sums[kFloatSums];
  for (int i = 0; i < kFloatSums; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 w = _mm256_set1_ps(0.5F);
  const __m256 a = _mm256_set1_ps(1e-6F);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 12
    for (int i = 0; i < kFloatSums; ++i) {
      __m256 sum = sums[i];  // an array's element would stay in memory
      __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(w));
      sums[i] = sum;
    }
  }
  for (int i = 1; i < kFloatSums; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  *sink = lowest_byte(_mm256_castps_si256(sums[0]));
  return steps * kFloatSums * 8;
}

}  // namespace

const PeakLoops kAvx2Peaks = {binary, int8, float32};

}  // namespace dirnet
