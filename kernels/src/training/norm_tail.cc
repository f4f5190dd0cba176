// The driver of a layer's tail: cuts the pixels into chunks, whose sums are added up in their order, so that
// the number of threads changes no bit.
#include <cmath>

#include "dirnet/training.h"
#include "dispatch/kernel_table.h"
#include "driver/layout.h"
#include "driver/memory.h"
#include "driver/parallel.h"

namespace dirnet {

static_assert(kTailActivations == kTailActivationCount, "a loop for each activation");

namespace {

// Of one tensor in one chunk: what a pass over 16 channels brings into the nearer caches, the pass over the
// next 16 finds there.
constexpr int64_t kChunkValues = 8 * 1024;

class TailDriver {
 public:
  TailDriver(const TrainingLoops& loops, const NormTail& tail)
      : loops_(loops),
        tail_(tail),
        activation_(static_cast<int>(tail.activation)),
        chunk_(ceil_div(kChunkValues, tail.channels)),
        chunks_(ceil_div(tail.pixels, chunk_)),
        blocks_(ceil_div(tail.channels, kTailLanes)),
        lanes_(static_cast<size_t>(blocks_) * sizeof(TailLanes)) {}

  bool empty() const { return lanes_.data() == nullptr; }

  void set_shape() const {
    for (int64_t block = 0; block < blocks_; ++block) {
      TailLanes& t = lanes(block);
      const int64_t left = tail_.channels - block * kTailLanes;
      t.channels = static_cast<int>(left < kTailLanes ? left : kTailLanes);
      t.stride = tail_.channels;
      t.bfloat16 = tail_.type == FloatType::kBfloat16;
      t.clip_min = tail_.clip_min;
      t.clip_max = tail_.clip_max;
    }
  }

  void set_norm(const float* mean, const float* variance) const {
    for (int64_t c = 0; c < tail_.channels; ++c) {
      TailLanes& t = lanes(c / kTailLanes);
      const int64_t i = c % kTailLanes;
      t.mean[i] = mean[c];
      t.scale[i] = tail_.gain[c] * inverse_deviation(variance[c]);
      t.offset[i] = tail_.offset[c];
      t.shift[i] = tail_.shift == nullptr ? 0.0F : tail_.shift[c];
      t.slope[i] = tail_.slope == nullptr ? 0.0F : tail_.slope[c];
    }
  }

  // mean and variance of each channel, from its chunks':
  //   m = sum n_i m_i / n;  n * variance = sum (squares_i + n_i (m_i - m)^2)
  bool measure(float* mean, float* variance, const Parallel& parallel) const {
    const AlignedBuffer memory(static_cast<size_t>(chunks_ * blocks_) * sizeof(TailMoments),
                               Contents::kUndefined);
    TailMoments* parts = reinterpret_cast<TailMoments*>(memory.data());
    if (parts == nullptr) return false;
    for_each_part(parallel, [&](const TailLanes& t, int64_t part, size_t at, int64_t pixels) {
      loops_.moments(t, in(tail_.x, at), pixels, parts + part);
    });
    const double count = static_cast<double>(tail_.pixels);
    for (int64_t c = 0; c < tail_.channels; ++c) {
      const TailMoments* of_block = parts + c / kTailLanes;
      const int64_t i = c % kTailLanes;
      double sum = 0.0;
      for (int64_t chunk = 0; chunk < chunks_; ++chunk)
        sum += static_cast<double>(of_block[chunk * blocks_].mean[i]) * pixels_of(chunk);
      const double middle = sum / count;
      double squares = 0.0;
      for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
        const TailMoments& part = of_block[chunk * blocks_];
        const double away = part.mean[i] - middle;
        squares += part.squares[i] + away * away * pixels_of(chunk);
      }
      mean[c] = static_cast<float>(middle);
      variance[c] = static_cast<float>(squares / count);
    }
    return true;
  }

  void forward(void* y, const Parallel& parallel) const {
    for_each_part(parallel, [&](const TailLanes& t, int64_t, size_t at, int64_t pixels) {
      loops_.forward[activation_](t, in(tail_.x, at), in(tail_.residual, at), pixels, out(y, at));
    });
  }

  // With u = (x - mean) / deviation and n pixels, for g = dL/dv:
  //   dL/doffset = sum g;  dL/dgain = sum g u;  dL/dx = gain / deviation * (g - sum g / n - u * sum g u / n)
  bool backward(const void* y_gradient, const float* variance, const NormTailGradients& gradients,
                const Parallel& parallel) const {
    const AlignedBuffer memory(static_cast<size_t>(chunks_ * blocks_) * sizeof(TailSums),
                               Contents::kUndefined);
    TailSums* parts = reinterpret_cast<TailSums*>(memory.data());
    if (parts == nullptr) return false;
    // The residual's gradient is g itself; without one g lies where x's gradient will.
    void* g = gradients.residual != nullptr ? gradients.residual : gradients.x;
    for_each_part(parallel, [&](const TailLanes& t, int64_t part, size_t at, int64_t pixels) {
      loops_.backward_sums[activation_](t, in(tail_.x, at), in(tail_.residual, at), in(y_gradient, at),
                                        pixels, out(g, at), parts + part);
    });
    const double count = static_cast<double>(tail_.pixels);
    for (int64_t c = 0; c < tail_.channels; ++c) {
      const TailSums* of_block = parts + c / kTailLanes;
      const int64_t i = c % kTailLanes;
      double gradient = 0.0, centred = 0.0, slope = 0.0;
      for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
        const TailSums& part = of_block[chunk * blocks_];
        gradient += part.gradient[i];
        centred += part.centred[i];
        slope += part.slope[i];
      }
      const double inverse = inverse_deviation(variance[c]);
      gradients.offset[c] = static_cast<float>(gradient);
      gradients.gain[c] = static_cast<float>(centred * inverse);
      if (gradients.slope != nullptr) gradients.slope[c] = static_cast<float>(slope);
      TailLanes& t = lanes(c / kTailLanes);
      t.gradient_mean[i] = static_cast<float>(gradient / count);
      t.gradient_slope[i] = static_cast<float>(centred * inverse * inverse / count);
    }
    for_each_part(parallel, [&](const TailLanes& t, int64_t, size_t at, int64_t pixels) {
      loops_.backward(t, in(tail_.x, at), in(g, at), pixels, out(gradients.x, at));
    });
    return true;
  }

 private:
  TailLanes& lanes(int64_t block) const { return reinterpret_cast<TailLanes*>(lanes_.data())[block]; }

  float inverse_deviation(float variance) const { return 1.0F / std::sqrt(variance + tail_.epsilon); }

  // Calls job(lanes, part, at, pixels) for each block of channels of each chunk of pixels, `at` being where
  // its values begin in every tensor, in bytes.
  template <typename Job>
  void for_each_part(const Parallel& parallel, const Job& job) const {
    for_each_item(parallel, chunks_, [&](int64_t chunk) {
      for (int64_t block = 0; block < blocks_; ++block) {
        const int64_t first = chunk * chunk_ * tail_.channels + block * kTailLanes;
        job(lanes(block), chunk * blocks_ + block, static_cast<size_t>(first * value_bytes(tail_.type)),
            pixels_of(chunk));
      }
    });
  }

  int64_t pixels_of(int64_t chunk) const {
    const int64_t left = tail_.pixels - chunk * chunk_;
    return left < chunk_ ? left : chunk_;
  }

  static const void* in(const void* tensor, size_t at) {
    return tensor == nullptr ? nullptr : static_cast<const char*>(tensor) + at;
  }
  static void* out(void* tensor, size_t at) { return static_cast<char*>(tensor) + at; }

  const TrainingLoops& loops_;
  const NormTail& tail_;
  int activation_;
  int64_t chunk_;
  int64_t chunks_;
  int64_t blocks_;
  AlignedBuffer lanes_;
};

}  // namespace

bool norm_tail(Isa isa, const NormTail& tail, void* y, float* mean, float* variance,
               const Parallel& parallel) {
  const TailDriver driver(*training_loops_of(isa), tail);
  if (driver.empty()) return false;
  driver.set_shape();
  if (!driver.measure(mean, variance, parallel)) return false;
  driver.set_norm(mean, variance);
  driver.forward(y, parallel);
  return true;
}

bool norm_tail_backward(Isa isa, const NormTail& tail, const float* mean, const float* variance,
                        const void* y_gradient, const NormTailGradients& gradients,
                        const Parallel& parallel) {
  const TailDriver driver(*training_loops_of(isa), tail);
  if (driver.empty()) return false;
  driver.set_shape();
  driver.set_norm(mean, variance);
  return driver.backward(y_gradient, variance, gradients, parallel);
}

}  // namespace dirnet
