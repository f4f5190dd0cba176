#include <immintrin.h>

#include "driver/stem_lanes.h"

namespace dirnet {

namespace {

struct Avx512Lanes {
  using Reg = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kTiles = 4;  // 6 x 4 sums, a weight and a broadcast of 32 registers

  static Reg load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Reg r) { _mm512_storeu_ps(p, r); }
  static Reg set1(float x) { return _mm512_set1_ps(x); }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
};

using Lanes = StemLanes<Avx512Lanes>;

}  // namespace

const StemKernels kAvx512Stem = {Lanes::transform_six, Lanes::winograd, Lanes::direct, Lanes::max_pool};

}  // namespace dirnet
