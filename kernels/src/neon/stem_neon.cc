#include <arm_neon.h>
#include <string.h>

#include "driver/stem_int8_lanes.h"

namespace dirnet {

namespace {

struct NeonLanes {
  using Reg = float32x4_t;
  static constexpr int kLanes = 4;
  static constexpr int kTiles = 4;  // 6 x 4 sums, a weight and a broadcast of 32 registers
  static constexpr int kRegisters = 1;
  static constexpr bool kByRows = true;

  static Reg load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, Reg r) { vst1q_f32(p, r); }
  static Reg set1(float x) { return vdupq_n_f32(x); }
  static Reg add(Reg a, Reg b) { return vaddq_f32(a, b); }
  static Reg sub(Reg a, Reg b) { return vsubq_f32(a, b); }
  static Reg mul(Reg a, Reg b) { return vmulq_f32(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return vfmaq_f32(c, a, b); }
  // vmaxq_f32 would make NaN of either operand.
  static Reg max(Reg a, Reg b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static Reg min(Reg a, Reg b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  static Reg prelu(Reg v, Reg slope) { return vbslq_f32(vcltzq_f32(v), vmulq_f32(v, slope), v); }
};

// One product of 16 bits to a lane, widened as it is added.
struct NeonWords {
  using Element = int16_t;
  using Sum = int32x4_t;
  using Weights = int16x4_t;
  using Taps = int16_t;
  static constexpr int kLanes = 4;
  static constexpr int kPack = 1;
  static constexpr int kGroups = 1;
  static constexpr int kPixels = 4;  // 4 x 4 sums, 4 weights and a broadcast of 32 registers

  static Sum load_sum(const int32_t* p) { return vld1q_s32(p); }
  static Weights load_weights(const uint8_t* p) { return vld1_s16(reinterpret_cast<const int16_t*>(p)); }
  static Taps broadcast(const uint8_t* p) {
    int16_t word;
    memcpy(&word, p, sizeof(word));
    return word;
  }
  static Sum dot(Sum sum, Taps a, Weights w) { return vmlal_n_s16(sum, w, a); }
  static float32x4_t to_float(Sum sum) { return vcvtq_f32_s32(sum); }
};

void quantize(const float* x, int64_t count, float scale, int32_t zero_point, uint8_t* elements) {
  const float32x4_t divisor = vdupq_n_f32(scale);
  const float32x4_t low = vdupq_n_f32(static_cast<float>(-zero_point));
  const float32x4_t high = vdupq_n_f32(static_cast<float>(255 - zero_point));
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const float32x4_t ratio = vdivq_f32(vld1q_f32(x + i), divisor);
    const float32x4_t clipped = NeonLanes::min(NeonLanes::max(ratio, low), high);
    vst1_s16(reinterpret_cast<int16_t*>(elements) + i, vmovn_s32(vcvtnq_s32_f32(clipped)));
  }
  quantize_words(x + i, count - i, scale, zero_point, elements + i * 2);
}

using Lanes = StemLanes<NeonLanes>;
using Words = Int8Lanes<NeonLanes, NeonWords>;

}  // namespace

const StemKernels kNeonStem = {Lanes::transform_six, Lanes::winograd,  Lanes::direct,
                               Lanes::max_pool,      NeonWords::kPack, sizeof(NeonWords::Element),
                               Words::row,           quantize};

}  // namespace dirnet
