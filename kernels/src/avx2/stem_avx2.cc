#include <immintrin.h>
#include <string.h>

#include "driver/stem_int8_lanes.h"

namespace dirnet {

namespace {

struct Avx2Lanes {
  using Reg = __m256;
  static constexpr int kLanes = 8;
  // 6 x 2 sums, two weights and a broadcast of 16 registers: 8 loads for 12 products. All six positions of a
  // row would need 18 loads for as many, where a cycle has time for two of either.
  static constexpr int kTiles = 6;
  static constexpr int kRegisters = 2;
  static constexpr bool kByRows = false;

  static Reg load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Reg r) { _mm256_storeu_ps(p, r); }
  static Reg set1(float x) { return _mm256_set1_ps(x); }
  static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  static Reg max(Reg a, Reg b) { return _mm256_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm256_min_ps(a, b); }
  static Reg prelu(Reg v, Reg slope) {
    return _mm256_blendv_ps(v, _mm256_mul_ps(v, slope), _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ));
  }
};

// Two products of 16 bits to a lane: vpmaddubsw, of bytes, would add them in 16 bits, which overflows.
struct Avx2Words {
  using Element = int16_t;
  using Sum = __m256i;
  using Weights = __m256i;
  using Taps = __m256i;
  static constexpr int kLanes = 8;
  static constexpr int kPack = 2;
  static constexpr int kGroups = 1;
  static constexpr int kPixels = 4;  // 4 x 2 sums, 2 weights, a broadcast and a product of 16 registers

  static Sum load_sum(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static Weights load_weights(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static Taps broadcast(const uint8_t* p) {
    int32_t pair;
    memcpy(&pair, p, sizeof(pair));
    return _mm256_set1_epi32(pair);
  }
  static Sum dot(Sum sum, Taps a, Weights w) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, w)); }
  static __m256 to_float(Sum sum) { return _mm256_cvtepi32_ps(sum); }
};

void quantize(const float* x, int64_t count, float scale, int32_t zero_point, uint8_t* elements) {
  const __m256 divisor = _mm256_set1_ps(scale);
  const __m256 low = _mm256_set1_ps(static_cast<float>(-zero_point));
  const __m256 high = _mm256_set1_ps(static_cast<float>(255 - zero_point));
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 ratio = _mm256_div_ps(_mm256_loadu_ps(x + i), divisor);
    const __m256i q = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(ratio, low), high));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(elements) + i / 8,
                     _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1)));
  }
  quantize_words(x + i, count - i, scale, zero_point, elements + i * 2);
}

using Lanes = StemLanes<Avx2Lanes>;
using Words = Int8Lanes<Avx2Lanes, Avx2Words>;

}  // namespace

const StemKernels kAvx2Stem = {Lanes::transform_six, Lanes::winograd,  Lanes::direct,
                               Lanes::max_pool,      Avx2Words::kPack, sizeof(Avx2Words::Element),
                               Words::row,           quantize};

}  // namespace dirnet
