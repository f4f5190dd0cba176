#include <immintrin.h>

#include "peak.h"

namespace dirnet {
namespace bench {

// xor, vpopcntd, add: three operations for 512 multiply-adds, on 16 independent sums.
int64_t peak_avx512(int64_t steps, volatile uint8_t* sink) {
  constexpr int kSums = 16;
  __m512i sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_set1_epi32(i);
  __m512i w = _mm512_set1_epi32(0x12345678);
  const __m512i a = _mm512_set1_epi32(0x0F1E2D3C);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      __asm__("" : "+v"(w));  // a new value as far as the compiler knows: the xor cannot move out of the loop
      sums[i] = _mm512_add_epi32(sums[i], _mm512_popcnt_epi32(_mm512_xor_si512(a, w)));
    }
  }
  for (int i = 1; i < kSums; ++i) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
  *sink = static_cast<uint8_t>(_mm_cvtsi128_si32(_mm512_castsi512_si128(sums[0])));
  return steps * kSums * 512;
}

}  // namespace bench
}  // namespace dirnet
