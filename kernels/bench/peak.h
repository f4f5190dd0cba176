// The rate that one core could reach if nothing but the arithmetic of an ISA's inner loop were left of it.
#ifndef DIRNET_BENCH_PEAK_H_
#define DIRNET_BENCH_PEAK_H_

#include <stdint.h>

namespace dirnet {
namespace bench {

// Runs the inner loop's operations on registers alone, `steps` times; returns binary multiply-adds done.
// The value written to `sink` depends on all of them.
using PeakFunction = int64_t (*)(int64_t steps, volatile uint8_t* sink);

int64_t peak_avx2(int64_t steps, volatile uint8_t* sink);
int64_t peak_avx512(int64_t steps, volatile uint8_t* sink);
int64_t peak_neon(int64_t steps, volatile uint8_t* sink);

}  // namespace bench
}  // namespace dirnet

#endif  // DIRNET_BENCH_PEAK_H_
