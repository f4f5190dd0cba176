// The loops behind dirnet/peak.h, of one ISA. Plain data and functions only, for the same reason as in
// tile.h.
#ifndef DIRNET_SRC_DRIVER_PEAK_LOOPS_H_
#define DIRNET_SRC_DRIVER_PEAK_LOOPS_H_

#include <stdint.h>

namespace dirnet {

// Repeats the arithmetic of an inner loop on registers alone, `steps` times; returns the multiply-adds done.
// The value written to `sink` depends on all of them.
using PeakLoop = int64_t (*)(int64_t steps, volatile uint8_t* sink);

struct PeakLoops {
  PeakLoop binary;   // of the ISA's binary micro-kernel
  PeakLoop int8;     // products of bytes, summed in 32 bits
  PeakLoop float32;  // fused multiply-adds
};

extern const PeakLoops kAvx2Peaks;
extern const PeakLoops kAvx512Peaks;
extern const PeakLoops kNeonPeaks;

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_PEAK_LOOPS_H_
