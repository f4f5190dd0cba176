#include "training/gradient_layout.h"

#include <algorithm>

#include "dirnet/training.h"
#include "driver/layout.h"
#include "training/gradient_loops.h"

namespace dirnet {

namespace {

// Pixels that share a scale, at least: enough that reading and adding up a tile's sums costs little.
constexpr int64_t kBlockPixels = 1024;

constexpr int64_t even(int64_t count) { return (count + 1) / 2 * 2; }
constexpr int64_t at_least_zero(int64_t count) { return count < 0 ? 0 : count; }

}  // namespace

// The input 0 meets the last tap at the output (pad - (kernel - 1) * dilation) / stride, which is negative
// where the window begins before the image, and the last input meets the first tap at (in - 1 + pad) /
// stride.
GradientAxis::GradientAxis(int64_t inputs, int64_t outputs, int64_t taps, int64_t step, int64_t pads,
                           int64_t spread)
    : in(inputs),
      out(outputs),
      kernel(taps),
      stride(step),
      pad(pads),
      dilation(spread),
      before(ceil_div(at_least_zero((kernel - 1) * dilation - pad), stride)),
      padded(before + out + at_least_zero((in - 1 + pad) / stride - (out - 1))) {}

bool gradient_buffers_countable(const Conv2dShape& s) {
  // As GradientLayout, but for what rounding up adds at most, in floating point, which does not overflow.
  constexpr double kMost = 1.0 * (int64_t{1} << 59);
  const GradientAxis y(s.in_h, s.out_h(), s.kernel_h, s.stride_h, s.pad_top, s.dilation_h);
  const GradientAxis x(s.in_w, s.out_w(), s.kernel_w, s.stride_w, s.pad_left, s.dilation_w);
  const double batch = static_cast<double>(s.batch) + static_cast<double>(kBlockPixels);
  const double in_c = static_cast<double>(s.in_c) + static_cast<double>(s.group * kDotLanes);
  const double out_c = static_cast<double>(s.out_c) + static_cast<double>(s.group * kDotLanes);
  const auto spread = [](const GradientAxis& axis) {
    return static_cast<double>(axis.out) * static_cast<double>(axis.stride) +
           static_cast<double>(axis.kernel) * static_cast<double>(axis.dilation) + 2.0;
  };
  const double signs = batch * in_c * spread(y) * (spread(x) + static_cast<double>(x.stride));
  const double rounded = batch * out_c * static_cast<double>(y.padded) * static_cast<double>(x.padded);
  const double weights = in_c * out_c * static_cast<double>(s.kernel_h) * static_cast<double>(s.kernel_w);
  const double images = batch * std::max(in_c * static_cast<double>(s.in_h) * static_cast<double>(s.in_w),
                                         out_c * static_cast<double>(y.out) * static_cast<double>(x.out + 1));
  return std::max({signs, rounded, weights, images}) <= kMost;
}

GradientLayout::GradientLayout(const Conv2dShape& s)
    : taps(s.kernel_h * s.kernel_w),
      group_in(s.in_c / s.group),
      group_out(s.out_c / s.group),
      in_tiles(ceil_div(group_in, kDotLanes)),
      out_tiles(ceil_div(group_out, kDotLanes)),
      images(ceil_div(kBlockPixels, s.out_h() * s.out_w())),
      y(s.in_h, s.out_h(), s.kernel_h, s.stride_h, s.pad_top, s.dilation_h),
      x(s.in_w, s.out_w(), s.kernel_w, s.stride_w, s.pad_left, s.dilation_w),
      pixel_values(even(group_out)),
      padded_image(y.padded * x.padded * pixel_values),
      pairs_row(even(x.out) * kDotLanes),
      pairs_tile(y.out * pairs_row),
      pairs_image(s.group * out_tiles * pairs_tile),
      plane_height((y.out - 1) * y.stride + (y.kernel - 1) * y.dilation + 1),
      plane_width(even(x.out) + (x.kernel - 1) * x.dilation / x.stride),
      phase_values(plane_height * plane_width),
      plane_values(x.stride * phase_values),
      signs_image(s.in_c * plane_values),
      tap_values(pixel_values * kDotLanes),
      weights_tile(taps * tap_values) {}

}  // namespace dirnet
