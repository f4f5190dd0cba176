#include "dirnet/dirnet.h"
#include "dispatch/kernel_table.h"
#include "driver/layout.h"
#include "driver/parallel.h"
#include "reference/reference.h"

namespace dirnet {

namespace {
// Enough for a thread to be worth waking: some ten microseconds of streaming.
constexpr int64_t kFloatsPerItem = 64 * 1024;
}  // namespace

void binarize(Isa isa, const float* x, int64_t pixels, int64_t channels, const float* threshold,
              uint64_t* bits, const Parallel& parallel) {
  const Kernels* kernels = kernels_of(isa);
  const auto kernel = kernels != nullptr ? kernels->binarize : reference::binarize;
  const int64_t chunk = ceil_div(kFloatsPerItem, channels);
  for_each_chunk(parallel, pixels, chunk, [&](int64_t begin, int64_t end) {
    kernel(x + begin * channels, end - begin, channels, threshold, bits + begin * words_for(channels));
  });
}

}  // namespace dirnet
