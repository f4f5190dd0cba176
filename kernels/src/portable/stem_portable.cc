// One float at a time: compilers make vectors of the plain loops where they may.
#include <string.h>

#include "driver/stem_int8_lanes.h"

namespace dirnet {

namespace {

struct PortableLanes {
  struct Reg {
    float lane[4];
  };
  static constexpr int kLanes = 4;
  static constexpr int kTiles = 1;
  static constexpr int kRegisters = 1;
  static constexpr bool kByRows = true;

  template <typename Step>
  static DIRNET_INLINE Reg each(const Step& step) {
    return {{step(0), step(1), step(2), step(3)}};
  }
  static Reg load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static void store(float* p, const Reg& r) {
    for (int i = 0; i < kLanes; ++i) p[i] = r.lane[i];
  }
  static Reg set1(float x) { return {{x, x, x, x}}; }
  static Reg add(const Reg& a, const Reg& b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static Reg sub(const Reg& a, const Reg& b) {
    return each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static Reg mul(const Reg& a, const Reg& b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static Reg fma(const Reg& a, const Reg& b, const Reg& c) {
    return each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  static Reg max(const Reg& a, const Reg& b) {
    return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Reg min(const Reg& a, const Reg& b) {
    return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Reg prelu(const Reg& v, const Reg& slope) {
    return each([&](int i) { return v.lane[i] < 0.0F ? slope.lane[i] * v.lane[i] : v.lane[i]; });
  }
};

struct PortableWords {
  using Element = int16_t;
  struct Sum {
    int32_t lane[4];
  };
  struct Weights {
    int16_t lane[4];
  };
  using Taps = int16_t;
  static constexpr int kLanes = 4;
  static constexpr int kPack = 1;
  static constexpr int kGroups = 1;
  static constexpr int kPixels = 1;

  static Sum load_sum(const int32_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static Weights load_weights(const uint8_t* p) {
    Weights w;
    memcpy(&w, p, sizeof(w));
    return w;
  }
  static Taps broadcast(const uint8_t* p) {
    int16_t word;
    memcpy(&word, p, sizeof(word));
    return word;
  }
  static Sum dot(const Sum& sum, Taps a, const Weights& w) {
    return {{sum.lane[0] + a * w.lane[0], sum.lane[1] + a * w.lane[1], sum.lane[2] + a * w.lane[2],
             sum.lane[3] + a * w.lane[3]}};
  }
  static PortableLanes::Reg to_float(const Sum& sum) {
    return PortableLanes::each([&](int i) { return static_cast<float>(sum.lane[i]); });
  }
};

using Lanes = StemLanes<PortableLanes>;
using Words = Int8Lanes<PortableLanes, PortableWords>;

}  // namespace

const StemKernels kPortableStem = {Lanes::transform_six, Lanes::winograd,      Lanes::direct,
                                   Lanes::max_pool,      PortableWords::kPack, sizeof(PortableWords::Element),
                                   Words::row,           quantize_words};

}  // namespace dirnet
