#ifndef DIRNET_SRC_DRIVER_PARALLEL_H_
#define DIRNET_SRC_DRIVER_PARALLEL_H_

#include "dirnet/dirnet.h"

namespace dirnet {

// Parts of an image's pixels that threads share: a thread writes most of what it reads in the operation
// behind. Few, as the weights are read once for each part, and enough for the threads to end together.
constexpr int64_t kPixelParts = 4;

// Calls job(item) for every item in [0, items).
template <typename Job>
void for_each_item(const Parallel& parallel, int64_t items, const Job& job) {
  if (parallel.run == nullptr || items <= 1) {
    for (int64_t item = 0; item < items; ++item) job(item);
    return;
  }
  parallel.run(
      parallel.context, items, [](void* arg, int64_t item) { (*static_cast<const Job*>(arg))(item); },
      const_cast<Job*>(&job));
}

// Splits [0, count) into chunks of `chunk` and calls job(begin, end) for each.
template <typename Job>
void for_each_chunk(const Parallel& parallel, int64_t count, int64_t chunk, const Job& job) {
  const int64_t items = (count + chunk - 1) / chunk;
  for_each_item(parallel, items, [&](int64_t item) {
    const int64_t begin = item * chunk;
    job(begin, begin + chunk < count ? begin + chunk : count);
  });
}

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_PARALLEL_H_
