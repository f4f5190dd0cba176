// The rate that one core could reach if nothing but the arithmetic of an inner loop were left of a kernel.
#ifndef DIRNET_PEAK_H_
#define DIRNET_PEAK_H_

#include <cstdint>

#include "dirnet/dirnet.h"

namespace dirnet {

enum class PeakKind : int { kBinary, kInt8, kFloat32 };
constexpr int kPeakKindCount = 3;

// Repeats the operations of `isa`'s inner loop on registers alone, `steps` times, and returns how many
// multiply-adds that were; 0, at once, where there is no such loop for this ISA, compiler or CPU.
int64_t run_peak(Isa isa, PeakKind kind, int64_t steps);

}  // namespace dirnet

#endif  // DIRNET_PEAK_H_
