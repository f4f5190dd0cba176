#include "reference/reference.h"

namespace dirnet {
namespace reference {

namespace {

int64_t words_for(int64_t channels) { return (channels + 63) / 64; }

bool get_bit(const uint64_t* words, int64_t channel) {
  return ((words[channel / 64] >> (channel % 64)) & 1U) != 0;
}

// dot = K - 2 * popcount(a xor w): every tap inside the image counts +1 where the bits agree and -1 where
// they do not.
int64_t dot_product(const uint64_t* weights, const uint64_t* input, const Conv2dShape& s, int64_t n,
                    int64_t oy, int64_t ox, int64_t o) {
  const int64_t group_in = s.in_c / s.group;
  const int64_t first_channel = o / (s.out_c / s.group) * group_in;
  int64_t dot = 0;
  for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
    const int64_t iy = oy * s.stride_h - s.pad_top + ky * s.dilation_h;
    if (iy < 0 || iy >= s.in_h) continue;
    for (int64_t kx = 0; kx < s.kernel_w; ++kx) {
      const int64_t ix = ox * s.stride_w - s.pad_left + kx * s.dilation_w;
      if (ix < 0 || ix >= s.in_w) continue;
      const uint64_t* a = input + ((n * s.in_h + iy) * s.in_w + ix) * words_for(s.in_c);
      const uint64_t* w = weights + ((o * s.kernel_h + ky) * s.kernel_w + kx) * words_for(group_in);
      for (int64_t c = 0; c < group_in; ++c) dot += get_bit(a, first_channel + c) == get_bit(w, c) ? 1 : -1;
    }
  }
  return dot;
}

}  // namespace

void binarize(const float* x, int64_t pixels, int64_t channels, const float* threshold, uint64_t* bits) {
  const int64_t words = words_for(channels);
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t i = 0; i < words; ++i) bits[p * words + i] = 0;
    for (int64_t c = 0; c < channels; ++c) {
      if (x[p * channels + c] >= threshold[c]) bits[p * words + c / 64] |= uint64_t{1} << (c % 64);
    }
  }
}

void binary_conv2d(const uint64_t* weights, const uint64_t* input, const Conv2dShape& s, const Epilogue& e) {
  const int64_t out_h = s.out_h();
  const int64_t out_w = s.out_w();
  const int64_t out_words = words_for(s.out_c);
  for (int64_t pixel = 0; pixel < s.batch * out_h * out_w; ++pixel) {
    const int64_t n = pixel / (out_h * out_w);
    const int64_t oy = pixel / out_w % out_h;
    const int64_t ox = pixel % out_w;
    for (int64_t i = 0; e.bits != nullptr && i < out_words; ++i) e.bits[pixel * out_words + i] = 0;
    for (int64_t o = 0; o < s.out_c; ++o) {
      float v = static_cast<float>(dot_product(weights, input, s, n, oy, ox, o)) * e.scale[o];
      v = v + e.bias[o];
      if (e.residual != nullptr) v = v + e.residual[pixel * s.out_c + o];
      v = v < e.clip_min ? e.clip_min : v;
      v = v > e.clip_max ? e.clip_max : v;
      if (e.slope != nullptr) v = v < 0.0F ? e.slope[o] * v : v;
      if (e.y != nullptr) e.y[pixel * s.out_c + o] = v;
      if (e.bits != nullptr && v >= e.threshold[o])
        e.bits[pixel * out_words + o / 64] |= uint64_t{1} << (o % 64);
    }
  }
}

}  // namespace reference
}  // namespace dirnet
