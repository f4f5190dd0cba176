#include "driver/spread_input.h"

#include "driver/layout.h"
#include "driver/parallel.h"

namespace dirnet {

SpreadInput::SpreadInput(const Kernels& kernels, const Conv2dShape& s, const uint8_t* input,
                         int64_t pixel_bytes, const Parallel& parallel)
    : memory_(static_cast<size_t>(s.batch * s.in_h * s.in_w * pixel_bytes / kernels.unit_bytes *
                                  kernels.input_unit_bytes),
              Contents::kUndefined) {
  if (empty()) return;
  const int64_t units = s.batch * s.in_h * s.in_w * pixel_bytes / kernels.unit_bytes;
  for_each_chunk(parallel, units, ceil_div(units, kPixelParts), [&](int64_t first, int64_t past) {
    kernels.spread_input(input + first * kernels.unit_bytes, past - first,
                         memory_.data() + first * kernels.input_unit_bytes);
  });
}

}  // namespace dirnet
