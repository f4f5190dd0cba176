#include "dirnet/peak.h"

#include "driver/peak_loops.h"

namespace dirnet {

namespace {

const PeakLoops* loops_of(Isa isa) {
  switch (isa) {
// The loops need to hide values from the optimizer, for which MSVC has no way.
#if !defined(_MSC_VER)
#if defined(DIRNET_BUILD_AVX2)
    case Isa::kAvx2:
      return &kAvx2Peaks;
#endif
#if defined(DIRNET_BUILD_AVX512)
    case Isa::kAvx512:
      return &kAvx512Peaks;
#endif
#if defined(DIRNET_BUILD_NEON)
    case Isa::kNeon:
      return &kNeonPeaks;
#endif
#endif
    default:
      return nullptr;
  }
}

}  // namespace

int64_t run_peak(Isa isa, PeakKind kind, int64_t steps) {
  const PeakLoops* loops = isa_supported(isa) ? loops_of(isa) : nullptr;
  if (loops == nullptr) return 0;
  volatile uint8_t sink = 0;
  switch (kind) {
    case PeakKind::kBinary:
      return loops->binary(steps, &sink);
    case PeakKind::kInt8:
      return loops->int8(steps, &sink);
    case PeakKind::kFloat32:
      return loops->float32(steps, &sink);
  }
  return 0;
}

}  // namespace dirnet
