#include <immintrin.h>

#include "driver/stem_lanes.h"

namespace dirnet {

namespace {

struct Avx2Lanes {
  using Reg = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kTiles = 2;  // 6 x 2 sums, a weight and a broadcast of 16 registers

  static Reg load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Reg r) { _mm256_storeu_ps(p, r); }
  static Reg set1(float x) { return _mm256_set1_ps(x); }
  static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  static Reg max(Reg a, Reg b) { return _mm256_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm256_min_ps(a, b); }
};

using Lanes = StemLanes<Avx2Lanes>;

}  // namespace

const StemKernels kAvx2Stem = {Lanes::transform_six, Lanes::winograd, Lanes::direct, Lanes::max_pool};

}  // namespace dirnet
