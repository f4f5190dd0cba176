// The runner's clock: time, or the emulator's count of instructions in place of it.
#ifndef DIRNET_RUNNER_CLOCK_H_
#define DIRNET_RUNNER_CLOCK_H_

#include <cstdint>

namespace dirnet::runner {

// Nanoseconds of the steady clock; under an emulator that counts, a microsecond for each instruction.
int64_t now_ns();

}  // namespace dirnet::runner

#endif  // DIRNET_RUNNER_CLOCK_H_
