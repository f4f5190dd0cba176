#include "driver/triple_planes.h"

#include "driver/layout.h"
#include "driver/parallel.h"

namespace dirnet {

TriplePlanes::TriplePlanes(const Kernels& kernels, const Conv2dShape& s, const uint8_t* input,
                           int64_t pixel_bytes, const Parallel& parallel)
    : plane_bytes_(s.batch * s.in_h * s.in_w * pixel_bytes),
      memory_(static_cast<size_t>(kTripleParts * plane_bytes_), Contents::kUndefined) {
  if (empty()) return;
  const int64_t reach = s.dilation_w * pixel_bytes;
  const int64_t row_bytes = s.in_w * pixel_bytes;
  const int64_t bytes = row_bytes - 2 * reach;
  if (bytes <= 0 || plane_bytes_ == 0) return;
  const int64_t rows = s.batch * s.in_h;
  for_each_chunk(parallel, rows, ceil_div(rows, kPixelParts), [&](int64_t first, int64_t past) {
    for (int64_t row = first; row < past; ++row) {
      const uint8_t* left = input + row * row_bytes;
      kernels.triple_planes(left, left + reach, left + 2 * reach, bytes / kernels.unit_bytes,
                            memory_.data() + row * row_bytes + reach, plane_bytes_);
    }
  });
}

}  // namespace dirnet
