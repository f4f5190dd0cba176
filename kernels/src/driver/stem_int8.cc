#include <algorithm>
#include <cstring>

#include "driver/stem_rows.h"

namespace dirnet {

Int8Rows::Int8Rows(const StemKernels& kernels, const PackedStem& stem, const StemShape& shape,
                   const StemEpilogue& epilogue, const float* image)
    : kernels_(kernels),
      shape_(shape),
      quantization_(stem.quantization()),
      image_(image),
      width_((shape.conv_w() - 1) * shape.stride_w +
             round_up(shape.kernel_w, static_cast<int64_t>(kernels.pack))),
      plane_bytes_(width_ * kernels.element_bytes),
      row_{},
      held_(static_cast<size_t>(shape.kernel_h) * sizeof(int64_t)),
      planes_(static_cast<size_t>(shape.kernel_h * shape.in_c) * sizeof(const uint8_t*)),
      memory_(static_cast<size_t>((shape.kernel_h * shape.in_c + 1) * plane_bytes_)) {
  const Int8Form form{kernels.pack, kernels.element_bytes};
  const Int8Offsets offsets(shape, form);
  const uint8_t* bytes = stem.data();
  row_.planes = reinterpret_cast<const uint8_t* const*>(planes_.data());
  row_.weights = bytes + offsets.weights;
  row_.runs = shape.kernel_h * shape.in_c;
  row_.steps = Int8Offsets::steps(shape, form);
  row_.stride_w = shape.stride_w;
  row_.out_c = padded_channels(shape);
  row_.columns = shape.conv_w();
  row_.start = reinterpret_cast<const int32_t*>(bytes + offsets.start);
  row_.scale = reinterpret_cast<const float*>(bytes + offsets.scale);
  row_.epilogue = epilogue;
  if (!ok()) return;
  std::fill_n(reinterpret_cast<int64_t*>(held_.data()), shape.kernel_h, int64_t{-1});
  // Columns before and after the image are never written again, nor is the last plane, of rows outside.
  const int padding = kernels.element_bytes == 1 ? quantization_.zero_point : 0;
  std::memset(memory_.data(), padding, static_cast<size_t>((row_.runs + 1) * plane_bytes_));
}

void Int8Rows::quantize_row(int64_t iy, uint8_t* planes) const {
  const StemShape& s = shape_;
  // Columns [begin, end) of a padded row lie in the image.
  const int64_t begin = std::min(s.pad_left, width_);
  const int64_t end = std::max(begin, std::min(s.pad_left + s.in_w, width_));
  for (int64_t c = 0; c < s.in_c; ++c) {
    kernels_.quantize(image_ + (c * s.in_h + iy) * s.in_w, end - begin, quantization_.scale,
                      quantization_.zero_point, planes + c * plane_bytes_ + begin * kernels_.element_bytes);
  }
}

void Int8Rows::write(int64_t y, float* out) {
  const StemShape& s = shape_;
  const int64_t row_bytes = s.in_c * plane_bytes_;
  const uint8_t* outside = memory_.data() + s.kernel_h * row_bytes;
  int64_t* held = reinterpret_cast<int64_t*>(held_.data());
  const uint8_t** to = reinterpret_cast<const uint8_t**>(planes_.data());
  for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
    const int64_t iy = y * s.stride_h - s.pad_top + ky;
    const bool inside = iy >= 0 && iy < s.in_h;
    // Of any kernel_h rows one after the other, each has a place of its own.
    const int64_t place = inside ? iy % s.kernel_h : 0;
    uint8_t* planes = memory_.data() + place * row_bytes;
    if (inside && held[place] != iy) {
      quantize_row(iy, planes);
      held[place] = iy;
    }
    for (int64_t c = 0; c < s.in_c; ++c) *to++ = inside ? planes + c * plane_bytes_ : outside;
  }
  row_.output = out;
  kernels_.int8_row(row_);
}

}  // namespace dirnet
