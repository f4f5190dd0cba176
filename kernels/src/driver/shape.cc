#include "dirnet/dirnet.h"

namespace dirnet {

namespace {

int64_t output_extent(int64_t in, int64_t pads, int64_t kernel, int64_t dilation, int64_t stride) {
  const int64_t room = in + pads - ((kernel - 1) * dilation + 1);
  return room < 0 ? 0 : room / stride + 1;
}

}  // namespace

int64_t Conv2dShape::out_h() const {
  return output_extent(in_h, pad_top + pad_bottom, kernel_h, dilation_h, stride_h);
}

int64_t Conv2dShape::out_w() const {
  return output_extent(in_w, pad_left + pad_right, kernel_w, dilation_w, stride_w);
}

}  // namespace dirnet
