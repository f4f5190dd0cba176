#include <arm_neon.h>

#include "driver/stem_lanes.h"

namespace dirnet {

namespace {

struct NeonLanes {
  using Reg = float32x4_t;
  static constexpr int kLanes = 4;
  static constexpr int kTiles = 4;  // 6 x 4 sums, a weight and a broadcast of 32 registers

  static Reg load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, Reg r) { vst1q_f32(p, r); }
  static Reg set1(float x) { return vdupq_n_f32(x); }
  static Reg add(Reg a, Reg b) { return vaddq_f32(a, b); }
  static Reg sub(Reg a, Reg b) { return vsubq_f32(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return vfmaq_f32(c, a, b); }
  // vmaxq_f32 would make NaN of either operand.
  static Reg max(Reg a, Reg b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static Reg min(Reg a, Reg b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
};

using Lanes = StemLanes<NeonLanes>;

}  // namespace

const StemKernels kNeonStem = {Lanes::transform_six, Lanes::winograd, Lanes::direct, Lanes::max_pool};

}  // namespace dirnet
