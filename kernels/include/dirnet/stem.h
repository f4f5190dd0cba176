// The float convolution before the first binary layer, with its bias, clip and max pooling, NCHW in and NHWC
// out: left alone, it and the passes around it take longer than all binary layers together.
#ifndef DIRNET_STEM_H_
#define DIRNET_STEM_H_

#include <cstddef>
#include <cstdint>
#include <limits>

#include "dirnet/dirnet.h"

namespace dirnet {

// Assumed: every extent and stride is >= 1 (batch may be 0), pads are >= 0, every pad of the pooling is
// smaller than its window, and stem_buffers_fit().
struct StemShape {
  int64_t batch, in_h, in_w, in_c, out_c;
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t pad_top, pad_left, pad_bottom, pad_right;
  int64_t pool_h, pool_w;  // 1 and 1 for none
  int64_t pool_stride_h, pool_stride_w;
  int64_t pool_top, pool_left, pool_bottom, pool_right;

  int64_t conv_h() const;  // 0 when the kernel does not fit into the padded image; then out_h() is 0, too
  int64_t conv_w() const;
  int64_t out_h() const;
  int64_t out_w() const;
};

// Whether each buffer that the convolution works in takes a gigabyte at most, of a shape whose numbers are
// below 2^31 each: a padded row is written out, however far beyond the image it reaches.
bool stem_buffers_fit(const StemShape& shape);

// What happens to a sum, in float32:
//   v = sum + bias[o];  v = v < clip_min ? clip_min : v;  v = v > clip_max ? clip_max : v;
//   v = v < 0 ? slope[o] * v : v;
//   y = the maximum of the window, NaN passed over;  bit = y >= threshold[o]
// At least one of y and bits is wanted; threshold is set whenever bits is.
struct StemOutputs {
  float clip_min = -std::numeric_limits<float>::infinity();
  float clip_max = std::numeric_limits<float>::infinity();
  const float* slope = nullptr;      // (O), null = ones
  const float* threshold = nullptr;  // (O)
  float* y = nullptr;                // (N, Ho, Wo, O), null = no float output
  uint64_t* bits = nullptr;          // (N, Ho, Wo, ceil(O / 64)), null = no bit output
};

// How an image becomes bytes: q = round(x / scale), ties to even, + zero_point, within 0 and 255; a NaN
// becomes 0. What a byte stands for is (q - zero_point) * scale.
struct StemQuantization {
  float scale = 0.0F;      // > 0; 0 for an image that stays float
  int32_t zero_point = 0;  // 0 .. 255
};

// A stem's weights, bias and, for weights of bytes, scale.
class PackedStem : public PackedBlock {
 public:
  PackedStem() = default;

  // The biases, and behind them what the form has.
  const float* floats() const { return reinterpret_cast<const float*>(data()); }
  bool is_int8() const { return quantization_.scale > 0.0F; }
  const StemQuantization& quantization() const { return quantization_; }

 private:
  friend PackedStem pack_stem(Isa isa, const float* weights, const float* bias, const StemShape& shape);
  friend PackedStem pack_int8_stem(Isa isa, const int8_t* weights, const float* scale, const float* bias,
                                   const StemQuantization& quantization, const StemShape& shape);
  using PackedBlock::PackedBlock;

  StemQuantization quantization_;
};

// Lays out (O, C, kh, kw) weights and (O) bias for `isa`, which must be built; batch, in_h, in_w and the
// pooling of the shape are ignored. The result is empty() when memory ran out.
PackedStem pack_stem(Isa isa, const float* weights, const float* bias, const StemShape& shape);

// The same for weights of bytes: a sum of products (q - zero_point) * w is an exact integer, and becomes a
// float as float(sum) * scale[o], to which the bias is added. Assumed: C * kh * kw <= kMostInt8Taps.
constexpr int64_t kMostInt8Taps = 65536;
PackedStem pack_int8_stem(Isa isa, const int8_t* weights, const float* scale, const float* bias,
                          const StemQuantization& quantization, const StemShape& shape);

// x (N, C, H, W) through convolution, epilogue and pooling, with the ISA that the weights were packed for.
// Sums are taken in another order than the reference's, and in Winograd's form where that is worth its while,
// so that results differ by rounding; where an infinity or NaN is near, sums are taken tap by tap. With
// weights of bytes every ISA gives the reference's bits. False (outputs unspecified) only when memory ran
// out.
bool stem_conv2d(const PackedStem& stem, const float* x, const StemShape& shape, const StemOutputs& outputs,
                 const Parallel& parallel);

}  // namespace dirnet

#endif  // DIRNET_STEM_H_
