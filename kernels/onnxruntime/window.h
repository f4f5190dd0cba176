// The attributes that every convolution has, written into its shape.
#ifndef DIRNET_ONNXRUNTIME_WINDOW_H_
#define DIRNET_ONNXRUNTIME_WINDOW_H_

#include <vector>

#include "checks.h"

namespace dirnet::ort {

// kernel_shape, strides and pads, for Conv2dShape and StemShape alike.
template <class Shape>
void read_window(const NodeInfo& node, Shape* shape) {
  const std::vector<int64_t> kernel = node.ints_attribute("kernel_shape", 2, 1, kLargest);
  const std::vector<int64_t> strides = node.ints_attribute("strides", 2, 1, kLargest);
  const std::vector<int64_t> pads = node.ints_attribute("pads", 4, 0, kLargest);
  shape->kernel_h = kernel[0];
  shape->kernel_w = kernel[1];
  shape->stride_h = strides[0];
  shape->stride_w = strides[1];
  shape->pad_top = pads[0];
  shape->pad_left = pads[1];
  shape->pad_bottom = pads[2];
  shape->pad_right = pads[3];
}

}  // namespace dirnet::ort

#endif  // DIRNET_ONNXRUNTIME_WINDOW_H_
