#include <immintrin.h>

#include "peak.h"

namespace dirnet {
namespace bench {

// vpshufb, add: two operations for 128 multiply-adds (32 channels, 4 input channels), on 8 independent sums.
int64_t peak_avx2(int64_t steps, volatile uint8_t* sink) {
  constexpr int kSums = 8;
  __m256i sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm256_set1_epi8(static_cast<char>(i));
  __m256i w = _mm256_set1_epi8(3);
  const __m256i table = _mm256_set1_epi32(0x02010100);
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      __asm__(
          ""
          : "+x"(w));  // a new value as far as the compiler knows: the shuffle cannot move out of the loop
      sums[i] = _mm256_add_epi8(sums[i], _mm256_shuffle_epi8(table, w));
    }
  }
  for (int i = 1; i < kSums; ++i) sums[0] = _mm256_add_epi8(sums[0], sums[i]);
  *sink = static_cast<uint8_t>(_mm256_extract_epi8(sums[0], 0));
  return steps * kSums * 128;
}

}  // namespace bench
}  // namespace dirnet
