#include <immintrin.h>
#include <string.h>

#include "driver/stem_int8_lanes.h"

namespace dirnet {

namespace {

struct Avx512Lanes {
  using Reg = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kTiles = 4;  // 6 x 4 sums, a weight and a broadcast of 32 registers
  static constexpr int kRegisters = 1;
  static constexpr bool kByRows = true;

  static Reg load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Reg r) { _mm512_storeu_ps(p, r); }
  static Reg set1(float x) { return _mm512_set1_ps(x); }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
  static Reg prelu(Reg v, Reg slope) {
    return _mm512_mask_mul_ps(v, _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ), v, slope);
  }
};

// VNNI: four products of an unsigned and a signed byte to a lane in one operation, 16 lanes to a register.
struct Avx512Bytes {
  using Element = uint8_t;
  using Sum = __m512i;
  using Weights = __m512i;
  using Taps = __m512i;
  static constexpr int kLanes = 16;
  static constexpr int kPack = 4;
  static constexpr int kGroups = 4;
  static constexpr int kPixels = 6;  // 6 x 4 sums, 4 weights and a broadcast of 32 registers

  static Sum load_sum(const int32_t* p) { return _mm512_loadu_si512(p); }
  static Weights load_weights(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static Taps broadcast(const uint8_t* p) {
    int32_t word;
    memcpy(&word, p, sizeof(word));
    return _mm512_set1_epi32(word);
  }
  static Sum dot(Sum sum, Taps a, Weights w) {
#if defined(__GNUC__) && !defined(__clang__)
    // GCC copies the sum around its own intrinsic, and then has to spill others.
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w));
    return sum;
#else
    return _mm512_dpbusd_epi32(sum, a, w);
#endif
  }
  static __m512 to_float(Sum sum) { return _mm512_cvtepi32_ps(sum); }
};

void quantize(const float* x, int64_t count, float scale, int32_t zero_point, uint8_t* elements) {
  const __m512 divisor = _mm512_set1_ps(scale);
  const __m512 low = _mm512_set1_ps(static_cast<float>(-zero_point));
  const __m512 high = _mm512_set1_ps(static_cast<float>(255 - zero_point));
  const __m512i zero = _mm512_set1_epi32(zero_point);
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m512 ratio = _mm512_div_ps(_mm512_loadu_ps(x + i), divisor);
    const __m512i q = _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(ratio, low), high));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(elements + i),
                     _mm512_cvtepi32_epi8(_mm512_add_epi32(q, zero)));
  }
  for (; i < count; ++i) elements[i] = static_cast<uint8_t>(quantized(x[i], scale, zero_point));
}

using Lanes = StemLanes<Avx512Lanes>;
using Bytes = Int8Lanes<Avx512Lanes, Avx512Bytes>;

}  // namespace

const StemKernels kAvx512Stem = {
    Lanes::transform_six,         Lanes::winograd, Lanes::direct, Lanes::max_pool, Avx512Bytes::kPack,
    sizeof(Avx512Bytes::Element), Bytes::row,      quantize};

}  // namespace dirnet
