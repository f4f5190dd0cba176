#ifndef DIRNET_SRC_DRIVER_TRIPLE_PLANES_H_
#define DIRNET_SRC_DRIVER_TRIPLE_PLANES_H_

#include "dirnet/dirnet.h"
#include "driver/memory.h"
#include "driver/tile.h"

namespace dirnet {

// The parts of rows of three taps (see kTripleParts) of an input of `pixel_bytes` a pixel: as many planes,
// each laid out as the input is, where a pixel stands for the row of which it is the middle tap. Pixels
// without neighbours `dilation_w` to both sides have none.
class TriplePlanes {
 public:
  // empty() when memory ran out.
  TriplePlanes(const Kernels& kernels, const Conv2dShape& shape, const uint8_t* input, int64_t pixel_bytes,
               const Parallel& parallel);

  bool empty() const { return memory_.data() == nullptr; }
  const uint8_t* data() const { return memory_.data(); }
  int64_t plane_bytes() const { return plane_bytes_; }

 private:
  int64_t plane_bytes_;
  AlignedBuffer memory_;
};

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_TRIPLE_PLANES_H_
