#include "dirnet/dirnet_c.h"

#include <atomic>
#include <exception>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "dirnet/dirnet.h"
#include "dirnet/peak.h"
#include "dirnet/training.h"

namespace {

using dirnet::Conv2dShape;
using dirnet::Isa;
using dirnet::Parallel;

bool known(int isa) { return isa >= 0 && isa < dirnet::kIsaCount; }

bool usable(int isa) {
  return known(isa) && dirnet::isa_built(static_cast<Isa>(isa)) &&
         dirnet::isa_supported(static_cast<Isa>(isa));
}

// The threads of one call: the caller's, or some that live no longer.
class Team {
 public:
  explicit Team(int threads, dirnet_fork fork = nullptr) : threads_(threads), fork_(fork) {}

  Parallel parallel() { return threads_ > 1 ? Parallel{this, run} : Parallel{}; }

 private:
  static void run(void* context, int64_t items, void (*task)(void* arg, int64_t item), void* arg) {
    const Team& team = *static_cast<const Team*>(context);
    std::atomic<int64_t> next{0};
    auto work = [&] {
      for (int64_t item = next++; item < items; item = next++) task(arg, item);
    };
    if (team.fork_ != nullptr) {
      team.fork_([](void* all) { (*static_cast<decltype(work)*>(all))(); }, &work,
                 static_cast<unsigned>(team.threads_), 0);
      return;
    }
    std::vector<std::thread> threads;
    try {
      threads.reserve(static_cast<size_t>(team.threads_ - 1));
      for (int i = 1; i < team.threads_; ++i) threads.emplace_back(work);
    } catch (const std::exception&) {  // fewer threads than wanted: those that run do all the items
    }
    work();
    for (std::thread& thread : threads) thread.join();
  }

  int threads_;
  dirnet_fork fork_;
};

bool trains(int isa) { return usable(isa) && dirnet::training_built(static_cast<Isa>(isa)); }

bool float_type(int type) { return type >= 0 && type < dirnet::kFloatTypeCount; }

// Numbers of a shape stay below this, so that products of two of them fit into 64 bits.
constexpr int64_t kLargest = INT32_MAX;

bool all_within(const int64_t* values, int first, int last, int64_t least) {
  for (int i = first; i < last; ++i) {
    if (values[i] < least || values[i] > kLargest) return false;
  }
  return true;
}

// False where the shape is impossible.
bool read_conv_shape(const int64_t shape[16], Conv2dShape* s) {
  *s = {shape[0], shape[1], shape[2],  shape[3],  shape[4],  shape[5],  shape[6],  shape[7],
        shape[8], shape[9], shape[10], shape[11], shape[12], shape[13], shape[14], shape[15]};
  return all_within(shape, 0, 1, 0) && all_within(shape, 1, 9, 1) && all_within(shape, 9, 13, 0) &&
         all_within(shape, 13, 16, 1) && s->in_c % s->group == 0 && s->out_c % s->group == 0 &&
         s->kernel_h * s->kernel_w <= kLargest / (s->in_c / s->group);
}

// Tensors without elements may come without an address.
bool has_input(const Conv2dShape& s) { return s.batch > 0; }
bool has_output(const Conv2dShape& s) { return s.batch > 0 && s.out_h() > 0 && s.out_w() > 0; }

// As much of the text as there is room for, with its closing zero; returns the whole length.
int64_t copy_text(std::string_view from, char* text, int64_t capacity) {
  if (text != nullptr && capacity > 0) text[from.copy(text, static_cast<size_t>(capacity - 1))] = '\0';
  return static_cast<int64_t>(from.size());
}

// False where an argument is impossible.
bool read_tail(const dirnet_tail* from, dirnet::NormTail* tail) {
  if (from == nullptr || from->pixels < 1 || from->pixels > kLargest || from->channels < 1 ||
      from->channels > kLargest || !float_type(from->type) || from->activation < 0 ||
      from->activation >= dirnet::kTailActivationCount || from->x == nullptr || from->gain == nullptr ||
      from->offset == nullptr) {
    return false;
  }
  tail->pixels = from->pixels;
  tail->channels = from->channels;
  tail->type = static_cast<dirnet::FloatType>(from->type);
  tail->activation = static_cast<dirnet::TailActivation>(from->activation);
  tail->x = from->x;
  tail->residual = from->residual;
  tail->gain = from->gain;
  tail->offset = from->offset;
  tail->shift = from->shift;
  tail->slope = from->slope;
  tail->epsilon = from->epsilon;
  tail->clip_min = from->clip_min;
  tail->clip_max = from->clip_max;
  return tail->activation != dirnet::TailActivation::kPrelu || tail->slope != nullptr;
}

}  // namespace

int dirnet_isa_count(void) { return dirnet::kIsaCount; }

const char* dirnet_isa_name(int isa) { return dirnet::isa_name(static_cast<Isa>(isa)); }

int dirnet_isa_built(int isa) { return known(isa) && dirnet::isa_built(static_cast<Isa>(isa)) ? 1 : 0; }

int dirnet_isa_supported(int isa) {
  return known(isa) && dirnet::isa_supported(static_cast<Isa>(isa)) ? 1 : 0;
}

int dirnet_chosen_isa(void) {
  try {
    Isa isa;
    std::string error;
    return dirnet::choose_isa(&isa, &error) ? static_cast<int>(isa) : -1;
  } catch (const std::exception&) {  // no memory for the error
    return -1;
  }
}

int64_t dirnet_chosen_isa_error(char* text, int64_t capacity) {
  try {
    Isa isa;
    std::string error;
    dirnet::choose_isa(&isa, &error);
    return copy_text(error, text, capacity);
  } catch (const std::exception&) {
    return copy_text("DIRNET_ISA cannot be obeyed, and there is no memory to say why.", text, capacity);
  }
}

int dirnet_binarize(int isa, const float* x, int64_t pixels, int64_t channels, const float* threshold,
                    uint64_t* bits, int threads) {
  if (!usable(isa)) return DIRNET_ISA_UNAVAILABLE;
  if (threshold == nullptr || pixels < 0 || pixels > kLargest || channels < 1 || channels > kLargest ||
      (pixels > 0 && (x == nullptr || bits == nullptr))) {
    return DIRNET_BAD_ARGUMENT;
  }
  dirnet::binarize(static_cast<Isa>(isa), x, pixels, channels, threshold, bits, Team(threads).parallel());
  return DIRNET_OK;
}

int dirnet_binary_conv2d(int isa, const uint64_t* input, const uint64_t* weights, const int64_t shape[16],
                         const float* scale, const float* bias, const float* slope, const float* residual,
                         float clip_min, float clip_max, const float* threshold, float* y, uint64_t* bits,
                         int threads) {
  if (!usable(isa)) return DIRNET_ISA_UNAVAILABLE;
  Conv2dShape s;
  if (weights == nullptr || shape == nullptr || scale == nullptr || bias == nullptr ||
      (bits != nullptr && threshold == nullptr) || !read_conv_shape(shape, &s) ||
      (has_input(s) && input == nullptr) || (has_output(s) && y == nullptr && bits == nullptr)) {
    return DIRNET_BAD_ARGUMENT;
  }
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
  return dirnet::binary_conv2d(packed, input, s, epilogue, Team(threads).parallel()) ? DIRNET_OK
                                                                                     : DIRNET_OUT_OF_MEMORY;
}

int dirnet_binary_max_pool2d(const uint64_t* input, const int64_t shape[14], uint64_t* output, int threads) {
  if (shape == nullptr || !all_within(shape, 0, 1, 0) || !all_within(shape, 1, 8, 1) ||
      !all_within(shape, 8, 10, 0) || !all_within(shape, 10, 12, 1) || !all_within(shape, 12, 14, 0)) {
    return DIRNET_BAD_ARGUMENT;
  }
  const dirnet::Pool2dShape s{shape[0], shape[1], shape[2], shape[3],  shape[4],  shape[5],  shape[6],
                              shape[7], shape[8], shape[9], shape[10], shape[11], shape[12], shape[13]};
  const bool has_output_pixels = s.batch > 0 && s.out_h > 0 && s.out_w > 0;
  if ((s.batch > 0 && input == nullptr) || (has_output_pixels && output == nullptr)) {
    return DIRNET_BAD_ARGUMENT;
  }
  dirnet::binary_max_pool2d(input, s, output, Team(threads).parallel());
  return DIRNET_OK;
}

int dirnet_training_built(int isa) { return trains(isa) ? 1 : 0; }

int dirnet_sign_conv2d(int isa, int x_type, const void* x, const float* threshold, const float* weights,
                       const int64_t shape[16], int y_type, void* y, int threads, dirnet_fork fork) {
  if (!trains(isa)) return DIRNET_ISA_UNAVAILABLE;
  Conv2dShape s;
  if (threshold == nullptr || weights == nullptr || shape == nullptr || !float_type(x_type) ||
      !float_type(y_type) || !read_conv_shape(shape, &s) || (has_input(s) && x == nullptr) ||
      (has_output(s) && y == nullptr)) {
    return DIRNET_BAD_ARGUMENT;
  }
  const bool done = dirnet::sign_conv2d(static_cast<Isa>(isa), static_cast<dirnet::FloatType>(x_type), x,
                                        threshold, weights, s, static_cast<dirnet::FloatType>(y_type), y,
                                        Team(threads, fork).parallel());
  return done ? DIRNET_OK : DIRNET_OUT_OF_MEMORY;
}

int dirnet_sign_conv2d_backward(int isa, int x_type, const void* x, const float* threshold,
                                const float* weights, const int64_t shape[16], int gradient_type,
                                const void* y_gradient, void* signs_gradient, float* weights_gradient,
                                int threads, dirnet_fork fork) {
  if (!trains(isa)) return DIRNET_ISA_UNAVAILABLE;
  Conv2dShape s;
  if (threshold == nullptr || weights == nullptr || shape == nullptr || weights_gradient == nullptr ||
      !float_type(x_type) || !float_type(gradient_type) || !read_conv_shape(shape, &s) ||
      (has_input(s) && (x == nullptr || signs_gradient == nullptr)) ||
      (has_output(s) && y_gradient == nullptr) || s.out_h() < 1 || s.out_w() < 1 ||
      s.out_h() > dirnet::kMostGradientPixels / s.out_w() ||
      s.out_c / s.group * s.kernel_h * s.kernel_w > dirnet::kMostGradientTerms ||
      !dirnet::gradient_buffers_countable(s)) {
    return DIRNET_BAD_ARGUMENT;
  }
  const bool done = dirnet::sign_conv2d_backward(
      static_cast<Isa>(isa), static_cast<dirnet::FloatType>(x_type), x, threshold, weights, s,
      static_cast<dirnet::FloatType>(gradient_type), y_gradient, {signs_gradient, weights_gradient},
      Team(threads, fork).parallel());
  return done ? DIRNET_OK : DIRNET_OUT_OF_MEMORY;
}

int dirnet_norm_tail(int isa, const struct dirnet_tail* tail, void* y, float* mean, float* variance,
                     int threads, dirnet_fork fork) {
  if (!trains(isa)) return DIRNET_ISA_UNAVAILABLE;
  dirnet::NormTail t;
  if (y == nullptr || mean == nullptr || variance == nullptr || !read_tail(tail, &t)) {
    return DIRNET_BAD_ARGUMENT;
  }
  const bool done =
      dirnet::norm_tail(static_cast<Isa>(isa), t, y, mean, variance, Team(threads, fork).parallel());
  return done ? DIRNET_OK : DIRNET_OUT_OF_MEMORY;
}

int dirnet_norm_tail_backward(int isa, const struct dirnet_tail* tail, const float* mean,
                              const float* variance, const void* y_gradient, void* x_gradient,
                              void* residual_gradient, float* gain_gradient, float* offset_gradient,
                              float* slope_gradient, int threads, dirnet_fork fork) {
  if (!trains(isa)) return DIRNET_ISA_UNAVAILABLE;
  dirnet::NormTail t;
  if (mean == nullptr || variance == nullptr || y_gradient == nullptr || x_gradient == nullptr ||
      gain_gradient == nullptr || offset_gradient == nullptr || !read_tail(tail, &t) ||
      (t.residual != nullptr) != (residual_gradient != nullptr) ||
      (t.activation == dirnet::TailActivation::kPrelu) != (slope_gradient != nullptr)) {
    return DIRNET_BAD_ARGUMENT;
  }
  const dirnet::NormTailGradients gradients{x_gradient, residual_gradient, gain_gradient, offset_gradient,
                                            slope_gradient};
  const bool done = dirnet::norm_tail_backward(static_cast<Isa>(isa), t, mean, variance, y_gradient,
                                               gradients, Team(threads, fork).parallel());
  return done ? DIRNET_OK : DIRNET_OUT_OF_MEMORY;
}

int64_t dirnet_run_peak(int isa, int kind, int64_t steps) {
  if (!usable(isa) || kind < 0 || kind >= dirnet::kPeakKindCount || steps < 1) return 0;
  return dirnet::run_peak(static_cast<Isa>(isa), static_cast<dirnet::PeakKind>(kind), steps);
}
