#include "driver/triple_planes.h"

namespace dirnet {

TriplePlanes::TriplePlanes(const Kernels& kernels, const Conv2dShape& s, const uint8_t* input,
                           int64_t pixel_bytes)
    : plane_bytes_(s.batch * s.in_h * s.in_w * pixel_bytes),
      memory_(static_cast<size_t>(kTripleParts * plane_bytes_), Contents::kUndefined) {
  if (empty()) return;
  const int64_t reach = s.dilation_w * pixel_bytes;
  const int64_t row_bytes = s.in_w * pixel_bytes;
  const int64_t bytes = row_bytes - 2 * reach;
  if (bytes <= 0) return;
  for (int64_t begin = 0; begin < plane_bytes_; begin += row_bytes) {
    const uint8_t* left = input + begin;
    kernels.triple_planes(left, left + reach, left + 2 * reach, bytes / kernels.unit_bytes,
                          memory_.data() + begin + reach, plane_bytes_);
  }
}

}  // namespace dirnet
