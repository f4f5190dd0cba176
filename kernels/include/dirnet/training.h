// What a training on processors computes with the kernels: binary convolutions and what stands between two of
// them, forward and backward.
//
// Results are the same to the bit on every ISA and for any number of threads.
#ifndef DIRNET_TRAINING_H_
#define DIRNET_TRAINING_H_

#include <cstdint>

#include "dirnet/dirnet.h"

namespace dirnet {

enum class FloatType : int { kFloat32, kBfloat16 };
constexpr int kFloatTypeCount = 2;
constexpr int64_t value_bytes(FloatType type) { return type == FloatType::kBfloat16 ? 2 : 4; }

// Whether the functions below were compiled for `isa`; not by compilers without vector types (MSVC).
bool training_built(Isa isa);

// y (N, Ho, Wo, O) = conv2d(sign(x - threshold), weights), x (N, H, W, C), as `y_type` (rounded to nearest,
// ties to even). `weights` are (O, kh, kw, C / group) floats +-s with one s for each of O. Same assumptions
// as Conv2dShape. False only when memory ran out.
bool sign_conv2d(Isa isa, FloatType x_type, const void* x, const float* threshold, const float* weights,
                 const Conv2dShape& shape, FloatType y_type, void* y, const Parallel& parallel);

// What the gradient dL/dy (N, Ho, Wo, O) of the function above becomes.
struct SignConvGradients {
  void* signs = nullptr;     // (N, H, W, C) of the gradient's type: dL/dsign(x - threshold)
  float* weights = nullptr;  // (O, kh, kw, C / group)
};

// The most values of an output channel in one image, and of one output channel's and one input channel's
// window, for which the sums below stay within 32 bits.
constexpr int64_t kMostGradientPixels = 65000;
constexpr int64_t kMostGradientTerms = 65000;

// Whether 64 bits can count the bytes of the backward pass's buffers, of a shape whose numbers are below 2^31
// each.
bool gradient_buffers_countable(const Conv2dShape& shape);

// Both convolutions of the backward pass, on signs and on gradients rounded to whole numbers of 16 bits:
// blocks of about 1,024 pixels share a scale, for `signs` one of them all, for `weights` one for each output
// channel, and the block's largest magnitude becomes 32,767. So a gradient is wrong by 1 / 65,534 of that at
// most, and those of magnitudes below 1e-30 count as 0; sums over signs are then exact. A NaN or an infinity
// makes all that its block takes part in NaN. Besides the assumptions above, Ho * Wo <= kMostGradientPixels
// and O / group * kh * kw <= kMostGradientTerms and gradient_buffers_countable(). False only when memory
// ran out.
bool sign_conv2d_backward(Isa isa, FloatType x_type, const void* x, const float* threshold,
                          const float* weights, const Conv2dShape& shape, FloatType gradient_type,
                          const void* y_gradient, const SignConvGradients& gradients,
                          const Parallel& parallel);

enum class TailActivation : int {
  kNone,
  kPrelu,  // v > 0 ? v : slope[c] * v
  kClip    // v < clip_min ? clip_min : v > clip_max ? clip_max : v
};
constexpr int kTailActivationCount = 3;

// The tail of a layer in training, on (pixels, channels):
//   v = (x - mean[c]) * gain[c] / sqrt(variance[c] + epsilon) + offset[c] + residual + shift[c];  y =
//   activation(v)
// with the mean and (biased) variance of each channel over all pixels. x, residual, y and their gradients are
// of one type; the arithmetic is float32, and sums over all pixels are of double precision at their end.
struct NormTail {
  int64_t pixels = 0;  // >= 1
  int64_t channels = 0;
  FloatType type = FloatType::kFloat32;
  const void* x = nullptr;
  const void* residual = nullptr;  // null = none
  const float* gain = nullptr;
  const float* offset = nullptr;
  const float* shift = nullptr;  // null = none
  float epsilon = 0.0F;
  TailActivation activation = TailActivation::kNone;
  const float* slope = nullptr;  // with kPrelu
  float clip_min = 0.0F;         // with kClip
  float clip_max = 0.0F;
};

// Writes y, mean (C) and variance (C). False only when memory ran out.
bool norm_tail(Isa isa, const NormTail& tail, void* y, float* mean, float* variance,
               const Parallel& parallel);

// What the gradient dL/dy becomes; `residual` is wanted where the tail has one, `slope` with kPrelu.
struct NormTailGradients {
  void* x = nullptr;         // (pixels, channels)
  void* residual = nullptr;  // (pixels, channels)
  float* gain = nullptr;     // (C)
  float* offset = nullptr;   // (C), and the shift's
  float* slope = nullptr;    // (C)
};

// `mean` and `variance` are norm_tail's. False only when memory ran out.
bool norm_tail_backward(Isa isa, const NormTail& tail, const float* mean, const float* variance,
                        const void* y_gradient, const NormTailGradients& gradients, const Parallel& parallel);

}  // namespace dirnet

#endif  // DIRNET_TRAINING_H_
