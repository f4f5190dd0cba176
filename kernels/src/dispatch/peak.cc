#include "dirnet/peak.h"

#include "dispatch/kernel_table.h"

namespace dirnet {

int64_t run_peak(Isa isa, PeakKind kind, int64_t steps) {
  const PeakLoops* loops = isa_supported(isa) ? table_of(isa).peaks : nullptr;
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
