#ifndef DIRNET_TESTS_THREADS_H_
#define DIRNET_TESTS_THREADS_H_

#include <atomic>
#include <thread>
#include <vector>

#include "check.h"
#include "dirnet/dirnet.h"

namespace dirnet {
namespace test {

// Runs the items in shuffled order on `threads` threads: results may depend on neither.
struct ShuffledThreads {
  int threads;
  uint64_t order_seed;

  Parallel parallel() { return {this, run}; }

  static void run(void* context, int64_t items, void (*task)(void*, int64_t), void* arg) {
    const ShuffledThreads& self = *static_cast<ShuffledThreads*>(context);
    Random random(self.order_seed);
    std::vector<int64_t> order(static_cast<size_t>(items));
    for (int64_t i = 0; i < items; ++i) {
      const int64_t j = random.below(i + 1);
      order[static_cast<size_t>(i)] = order[static_cast<size_t>(j)];
      order[static_cast<size_t>(j)] = i;
    }
    std::atomic<int64_t> next{0};
    std::vector<std::thread> pool;
    for (int t = 0; t < self.threads; ++t) {
      pool.emplace_back([&] {
        for (int64_t i = next++; i < items; i = next++) task(arg, order[static_cast<size_t>(i)]);
      });
    }
    for (std::thread& thread : pool) thread.join();
  }
};

}  // namespace test
}  // namespace dirnet

#endif  // DIRNET_TESTS_THREADS_H_
