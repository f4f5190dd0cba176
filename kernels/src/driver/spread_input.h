#ifndef DIRNET_SRC_DRIVER_SPREAD_INPUT_H_
#define DIRNET_SRC_DRIVER_SPREAD_INPUT_H_

#include "dirnet/dirnet.h"
#include "driver/memory.h"
#include "driver/tile.h"

namespace dirnet {

// A copy of an input of `pixel_bytes` a pixel with each unit spread to Kernels::input_unit_bytes.
class SpreadInput {
 public:
  // empty() when memory ran out.
  SpreadInput(const Kernels& kernels, const Conv2dShape& shape, const uint8_t* input, int64_t pixel_bytes,
              const Parallel& parallel);

  bool empty() const { return memory_.data() == nullptr; }
  const uint8_t* data() const { return memory_.data(); }

 private:
  AlignedBuffer memory_;
};

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_SPREAD_INPUT_H_
