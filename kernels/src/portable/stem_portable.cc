// One float at a time: compilers make vectors of the plain loops where they may.
#include "driver/stem_lanes.h"

namespace dirnet {

namespace {

struct PortableLanes {
  struct Reg {
    float lane[4];
  };
  static constexpr int kLanes = 4;
  static constexpr int kTiles = 1;

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
  static Reg fma(const Reg& a, const Reg& b, const Reg& c) {
    return each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  static Reg max(const Reg& a, const Reg& b) {
    return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Reg min(const Reg& a, const Reg& b) {
    return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
};

using Lanes = StemLanes<PortableLanes>;

}  // namespace

const StemKernels kPortableStem = {Lanes::transform_six, Lanes::winograd, Lanes::direct, Lanes::max_pool};

}  // namespace dirnet
