#include "dirnet/dirnet_c.h"

#include <atomic>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "dirnet/dirnet.h"
#include "dirnet/peak.h"

namespace {

using dirnet::Conv2dShape;
using dirnet::Isa;
using dirnet::Parallel;

bool known(int isa) { return isa >= 0 && isa < dirnet::kIsaCount; }

bool usable(int isa) {
  return known(isa) && dirnet::isa_built(static_cast<Isa>(isa)) &&
         dirnet::isa_supported(static_cast<Isa>(isa));
}

// Threads that live for one call: what the tests need. Inference brings its own pool.
void run_on_threads(void* context, int64_t items, void (*task)(void* arg, int64_t item), void* arg) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t item = next++; item < items; item = next++) task(arg, item);
  };
  std::vector<std::thread> threads;
  try {
    for (int i = 1; i < *static_cast<int*>(context); ++i) threads.emplace_back(work);
  } catch (const std::system_error&) {  // fewer threads than wanted: those that run do all the items
  }
  work();
  for (std::thread& thread : threads) thread.join();
}

Parallel parallel_for(int* threads) {
  Parallel parallel;
  if (*threads > 1) {
    parallel.context = threads;
    parallel.run = run_on_threads;
  }
  return parallel;
}

bool all_at_least(const int64_t* values, int first, int last, int64_t least) {
  for (int i = first; i < last; ++i) {
    if (values[i] < least) return false;
  }
  return true;
}

}  // namespace

int dirnet_isa_count(void) { return dirnet::kIsaCount; }

const char* dirnet_isa_name(int isa) { return dirnet::isa_name(static_cast<Isa>(isa)); }

int dirnet_isa_built(int isa) { return known(isa) && dirnet::isa_built(static_cast<Isa>(isa)) ? 1 : 0; }

int dirnet_isa_supported(int isa) {
  return known(isa) && dirnet::isa_supported(static_cast<Isa>(isa)) ? 1 : 0;
}

int dirnet_chosen_isa(void) {
  Isa isa;
  std::string error;
  return dirnet::choose_isa(&isa, &error) ? static_cast<int>(isa) : -1;
}

int64_t dirnet_chosen_isa_error(char* text, int64_t capacity) {
  Isa isa;
  std::string error;
  dirnet::choose_isa(&isa, &error);
  if (text != nullptr && capacity > 0) {
    const size_t copied = error.copy(text, static_cast<size_t>(capacity - 1));
    text[copied] = '\0';
  }
  return static_cast<int64_t>(error.size());
}

int dirnet_binarize(int isa, const float* x, int64_t pixels, int64_t channels, const float* threshold,
                    uint64_t* bits, int threads) {
  if (!usable(isa)) return DIRNET_ISA_UNAVAILABLE;
  if (x == nullptr || threshold == nullptr || bits == nullptr || pixels < 0 || channels < 1) {
    return DIRNET_BAD_ARGUMENT;
  }
  dirnet::binarize(static_cast<Isa>(isa), x, pixels, channels, threshold, bits, parallel_for(&threads));
  return DIRNET_OK;
}

int dirnet_binary_conv2d(int isa, const uint64_t* input, const uint64_t* weights, const int64_t shape[16],
                         const float* scale, const float* bias, const float* slope, const float* residual,
                         float clip_min, float clip_max, const float* threshold, float* y, uint64_t* bits,
                         int threads) {
  if (!usable(isa)) return DIRNET_ISA_UNAVAILABLE;
  if (input == nullptr || weights == nullptr || shape == nullptr || scale == nullptr || bias == nullptr ||
      (y == nullptr && bits == nullptr) || (bits != nullptr && threshold == nullptr)) {
    return DIRNET_BAD_ARGUMENT;
  }
  const Conv2dShape s{shape[0], shape[1], shape[2],  shape[3],  shape[4],  shape[5],  shape[6],  shape[7],
                      shape[8], shape[9], shape[10], shape[11], shape[12], shape[13], shape[14], shape[15]};
  const bool extents_right = all_at_least(shape, 0, 1, 0) && all_at_least(shape, 1, 9, 1) &&
                             all_at_least(shape, 9, 13, 0) && all_at_least(shape, 13, 16, 1);
  if (!extents_right || s.in_c % s.group != 0 || s.out_c % s.group != 0) return DIRNET_BAD_ARGUMENT;
  dirnet::Epilogue epilogue;
  epilogue.scale = scale;
  epilogue.bias = bias;
  epilogue.slope = slope;
  epilogue.residual = residual;
  epilogue.clip_min = clip_min;
  epilogue.clip_max = clip_max;
  epilogue.threshold = threshold;
  epilogue.y = y;
  epilogue.bits = bits;
  const dirnet::PackedWeights packed = dirnet::pack_weights(static_cast<Isa>(isa), weights, s);
  if (packed.empty()) return DIRNET_OUT_OF_MEMORY;
  return dirnet::binary_conv2d(packed, input, s, epilogue, parallel_for(&threads)) ? DIRNET_OK
                                                                                   : DIRNET_OUT_OF_MEMORY;
}

int dirnet_binary_max_pool2d(const uint64_t* input, const int64_t shape[14], uint64_t* output, int threads) {
  if (input == nullptr || shape == nullptr || output == nullptr) return DIRNET_BAD_ARGUMENT;
  if (!all_at_least(shape, 0, 1, 0) || !all_at_least(shape, 1, 8, 1) || !all_at_least(shape, 8, 10, 0) ||
      !all_at_least(shape, 10, 12, 1) || !all_at_least(shape, 12, 14, 0)) {
    return DIRNET_BAD_ARGUMENT;
  }
  const dirnet::Pool2dShape s{shape[0], shape[1], shape[2], shape[3],  shape[4],  shape[5],  shape[6],
                              shape[7], shape[8], shape[9], shape[10], shape[11], shape[12], shape[13]};
  dirnet::binary_max_pool2d(input, s, output, parallel_for(&threads));
  return DIRNET_OK;
}

int64_t dirnet_run_peak(int isa, int kind, int64_t steps) {
  if (!usable(isa) || kind < 0 || kind >= dirnet::kPeakKindCount || steps < 1) return 0;
  return dirnet::run_peak(static_cast<Isa>(isa), static_cast<dirnet::PeakKind>(kind), steps);
}
