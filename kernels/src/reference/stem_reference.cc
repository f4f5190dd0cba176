#include <cmath>

#include "driver/stem_layout.h"
#include "reference/reference.h"

namespace dirnet {
namespace reference {

namespace {

// Summed in double, so that every other order of summation can be compared with it.
double float_sum(const PackedStem& stem, const float* image, const StemShape& s, int64_t o, int64_t y,
                 int64_t x) {
  const StemOffsets offsets(s);
  const float* weight = stem.floats() + offsets.direct + o;
  double sum = 0;
  for (int64_t c = 0; c < s.in_c; ++c) {
    for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
      for (int64_t kx = 0; kx < s.kernel_w; ++kx, weight += padded_channels(s)) {
        const int64_t iy = y * s.stride_h - s.pad_top + ky;
        const int64_t ix = x * s.stride_w - s.pad_left + kx;
        if (iy < 0 || iy >= s.in_h || ix < 0 || ix >= s.in_w) continue;
        sum += static_cast<double>(image[(c * s.in_h + iy) * s.in_w + ix]) * *weight;
      }
    }
  }
  return sum;
}

int32_t quantized(float x, const StemQuantization& q) {
  const float ratio = x / q.scale;
  // Not a number is not at least the smallest either.
  if (!(ratio >= static_cast<float>(-q.zero_point))) return 0;
  if (ratio >= static_cast<float>(255 - q.zero_point)) return 255;
  return static_cast<int32_t>(std::nearbyint(ratio)) + q.zero_point;
}

int32_t int8_sum(const PackedStem& stem, const float* image, const StemShape& s, int64_t o, int64_t y,
                 int64_t x) {
  const int8_t* weight = reinterpret_cast<const int8_t*>(stem.data()) + Int8Offsets(s, {}).weights +
                         o * s.in_c * s.kernel_h * s.kernel_w;
  int32_t sum = 0;
  for (int64_t c = 0; c < s.in_c; ++c) {
    for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
      for (int64_t kx = 0; kx < s.kernel_w; ++kx, ++weight) {
        const int64_t iy = y * s.stride_h - s.pad_top + ky;
        const int64_t ix = x * s.stride_w - s.pad_left + kx;
        if (iy < 0 || iy >= s.in_h || ix < 0 || ix >= s.in_w) continue;
        const int32_t q = quantized(image[(c * s.in_h + iy) * s.in_w + ix], stem.quantization());
        sum += (q - stem.quantization().zero_point) * *weight;
      }
    }
  }
  return sum;
}

float scaled(const PackedStem& stem, int32_t sum, const StemShape& s, int64_t o) {
  return static_cast<float>(sum) * stem.floats()[padded_channels(s) + o];
}

float activated(const PackedStem& stem, const float* image, const StemShape& s, const StemOutputs& outputs,
                int64_t o, int64_t y, int64_t x) {
  const float sum = stem.is_int8() ? scaled(stem, int8_sum(stem, image, s, o, y, x), s, o)
                                   : static_cast<float>(float_sum(stem, image, s, o, y, x));
  float v = sum + stem.floats()[o];
  v = v < outputs.clip_min ? outputs.clip_min : v;
  v = v > outputs.clip_max ? outputs.clip_max : v;
  return outputs.slope != nullptr && v < 0.0F ? outputs.slope[o] * v : v;
}

}  // namespace

bool stem_conv2d(const PackedStem& stem, const float* x, const StemShape& s, const StemOutputs& outputs) {
  const int64_t words = words_for(s.out_c);
  const int64_t pixels = s.batch * s.out_h() * s.out_w();
  if (outputs.bits != nullptr) {
    for (int64_t i = 0; i < pixels * words; ++i) outputs.bits[i] = 0;
  }
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    const float* image = x + pixel / (s.out_h() * s.out_w()) * s.in_c * s.in_h * s.in_w;
    const int64_t top = pixel / s.out_w() % s.out_h() * s.pool_stride_h - s.pool_top;
    const int64_t left = pixel % s.out_w() * s.pool_stride_w - s.pool_left;
    for (int64_t o = 0; o < s.out_c; ++o) {
      float most = -std::numeric_limits<float>::infinity();
      for (int64_t y = top; y < top + s.pool_h; ++y) {
        for (int64_t column = left; column < left + s.pool_w; ++column) {
          if (y < 0 || y >= s.conv_h() || column < 0 || column >= s.conv_w()) continue;
          const float v = activated(stem, image, s, outputs, o, y, column);
          most = v > most ? v : most;
        }
      }
      if (outputs.y != nullptr) outputs.y[pixel * s.out_c + o] = most;
      if (outputs.bits != nullptr && most >= outputs.threshold[o]) {
        outputs.bits[pixel * words + o / 64] |= uint64_t{1} << (o % 64);
      }
    }
  }
  return true;
}

}  // namespace reference
}  // namespace dirnet
