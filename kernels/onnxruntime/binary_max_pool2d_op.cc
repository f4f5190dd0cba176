// BinaryMaxPool2d: B (N, H, W, Cw) uint64 -> Bo (N, Ho, Wo, Cw) uint64, the OR of each window.
#include <string>

#include "checks.h"
#include "operator.h"

namespace dirnet::ort {
namespace {

class BinaryMaxPool2d : public Kernel {
 public:
  explicit BinaryMaxPool2d(const NodeInfo& node)
      : channels_(node.int_attribute("channels", 1, kLargest)),
        kernel_(node.ints_attribute("kernel_shape", 2, 1, kLargest)),
        strides_(node.ints_attribute("strides", 2, 1, kLargest)),
        pads_(node.ints_attribute("pads", 4, 0, kLargest)),
        dilations_(node.ints_attribute("dilations", 2, 1, kLargest)),
        ceil_mode_(node.int_attribute("ceil_mode", 0, 1) == 1) {
    if (kernel_[0] > kLargest / kernel_[1]) {
      throw Failure("attribute 'kernel_shape' makes a window of 2^31 taps or more");
    }
  }

  void compute(const Call& call) const override {
    const Tensor input = call.input(0);
    check_dims(input, {-1, -1, -1, words_for(channels_)});
    Pool2dShape shape{};
    shape.batch = input.dims[0];
    shape.in_h = input.dims[1];
    shape.in_w = input.dims[2];
    shape.channels = channels_;
    shape.kernel_h = kernel_[0];
    shape.kernel_w = kernel_[1];
    shape.stride_h = strides_[0];
    shape.stride_w = strides_[1];
    shape.pad_top = pads_[0];
    shape.pad_left = pads_[1];
    shape.dilation_h = dilations_[0];
    shape.dilation_w = dilations_[1];
    shape.out_h = pooled_length(shape.in_h, 0);
    shape.out_w = pooled_length(shape.in_w, 1);
    if (shape.in_h < 1 || shape.in_w < 1 || shape.out_h < 1 || shape.out_w < 1) {
      throw Failure("'B' holds images of " + std::to_string(shape.in_h) + " x " + std::to_string(shape.in_w) +
                    ", too small for the window even with its padding");
    }
    check_spare_bits(input, channels_);
    const std::vector<int64_t> dims{shape.batch, shape.out_h, shape.out_w, words_for(channels_)};
    element_count(dims, "the output");
    uint64_t* bits = call.word_output(0, dims);
    if (shape.batch > 0) binary_max_pool2d(input.words(), shape, bits, call.parallel());
  }

 private:
  // As in PyTorch: with ceil_mode, even the first window may reach beyond the padding, by less than a stride,
  // and a last window that would begin in the padding after the input is dropped.
  int64_t pooled_length(int64_t size, size_t axis) const {
    const int64_t before = pads_[axis];
    const int64_t stride = strides_[axis];
    const int64_t span = size + before + pads_[axis + 2] - dilations_[axis] * (kernel_[axis] - 1) - 1;
    const int64_t room = span + (ceil_mode_ ? stride - 1 : 0);
    if (room < 0) return 0;
    const int64_t length = room / stride + 1;
    return ceil_mode_ && (length - 1) * stride >= size + before ? length - 1 : length;
  }

  int64_t channels_;
  std::vector<int64_t> kernel_, strides_, pads_, dilations_;
  bool ceil_mode_;
};

}  // namespace

std::vector<Definition> binary_max_pool2d_definitions() {
  return {{"BinaryMaxPool2d",
           {{"B", kUint64}},
           {{"Bo", kUint64}},
           [](const NodeInfo& node, const Definition&) -> std::unique_ptr<Kernel> {
             return std::make_unique<BinaryMaxPool2d>(node);
           }}};
}

}  // namespace dirnet::ort
