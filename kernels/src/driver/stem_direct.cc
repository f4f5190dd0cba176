#include <algorithm>

#include "driver/stem_rows.h"

namespace dirnet {

DirectRows::DirectRows(const StemKernels& kernels, const PackedStem& stem, const StemShape& shape,
                       const StemEpilogue& epilogue, const float* image)
    : kernels_(kernels),
      shape_(shape),
      image_(image),
      width_(seen_width(shape)),
      row_{},
      window_(static_cast<size_t>(window_floats<int64_t>(shape)) * sizeof(float)) {
  row_.input = reinterpret_cast<const float*>(window_.data());
  row_.weights = stem.floats() + StemOffsets(shape).direct;
  row_.channels = shape.in_c;
  row_.kernel_h = shape.kernel_h;
  row_.kernel_w = shape.kernel_w;
  row_.stride_w = shape.stride_w;
  row_.channel_floats = shape.kernel_h * width_;
  row_.input_row_floats = width_;
  row_.out_c = padded_channels(shape);
  row_.columns = shape.conv_w();
  row_.epilogue = epilogue;
}

void DirectRows::write(int64_t y, float* out) {
  const StemShape& s = shape_;
  // Columns [begin, end) of a padded row lie in the image.
  const int64_t begin = std::min(s.pad_left, width_);
  const int64_t end = std::max(begin, std::min(s.pad_left + s.in_w, width_));
  float* to = reinterpret_cast<float*>(window_.data());
  for (int64_t c = 0; c < s.in_c; ++c) {
    for (int64_t ky = 0; ky < s.kernel_h; ++ky, to += width_) {
      const int64_t iy = y * s.stride_h - s.pad_top + ky;
      if (iy < 0 || iy >= s.in_h) {
        std::fill(to, to + width_, 0.0F);
        continue;
      }
      const float* from = image_ + (c * s.in_h + iy) * s.in_w;
      std::fill(to, to + begin, 0.0F);
      std::copy(from, from + (end - begin), to + begin);
      std::fill(to + end, to + width_, 0.0F);
    }
  }
  row_.output = out;
  kernels_.direct(row_);
}

}  // namespace dirnet
