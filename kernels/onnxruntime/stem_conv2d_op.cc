// StemConv2d: X (N, C, H, W) float -> Y (N, Ho, Wo, O) float, its bits, or both.
#include <new>
#include <optional>
#include <string>

#include "checks.h"
#include "dirnet/stem.h"
#include "operator.h"

namespace dirnet::ort {
namespace {

StemShape read_shape(const NodeInfo& node) {
  const std::vector<int64_t> kernel = node.ints_attribute("kernel_shape", 2, 1, kLargest);
  const std::vector<int64_t> strides = node.ints_attribute("strides", 2, 1, kLargest);
  const std::vector<int64_t> pads = node.ints_attribute("pads", 4, 0, kLargest);
  const std::vector<int64_t> pool = node.ints_attribute("pool_kernel_shape", 2, 1, kLargest);
  const std::vector<int64_t> pool_strides = node.ints_attribute("pool_strides", 2, 1, kLargest);
  const std::vector<int64_t> pool_pads = node.ints_attribute("pool_pads", 4, 0, kLargest);
  for (size_t i = 0; i < pool_pads.size(); ++i) {
    if (pool_pads[i] < pool[i % 2]) continue;
    throw Failure("attribute 'pool_pads' holds " + std::to_string(pool_pads[i]) +
                  ", which is not smaller than the window");
  }
  StemShape shape{};
  shape.kernel_h = kernel[0];
  shape.kernel_w = kernel[1];
  shape.stride_h = strides[0];
  shape.stride_w = strides[1];
  shape.pad_top = pads[0];
  shape.pad_left = pads[1];
  shape.pad_bottom = pads[2];
  shape.pad_right = pads[3];
  shape.pool_h = pool[0];
  shape.pool_w = pool[1];
  shape.pool_stride_h = pool_strides[0];
  shape.pool_stride_w = pool_strides[1];
  shape.pool_top = pool_pads[0];
  shape.pool_left = pool_pads[1];
  shape.pool_bottom = pool_pads[2];
  shape.pool_right = pool_pads[3];
  return shape;
}

class StemConv2d : public Kernel {
 public:
  StemConv2d(const NodeInfo& node, const Definition& definition)
      : isa_(node.isa()), shape_(read_shape(node)) {
    for (size_t i = 0; i < definition.outputs.size(); ++i) {
      (definition.outputs[i].element_type == kFloat32 ? y_ : bits_) = i;
    }
    outputs_.clip_min = node.float_attribute("clip_min");
    outputs_.clip_max = node.float_attribute("clip_max");
    Tensor weights;
    Tensor bias;
    if (node.constant_input(1, &weights) && node.constant_input(2, &bias)) {
      packed_ = packed(weights, bias, &shape_);
    }
  }

  void compute(const Call& call) const override {
    StemShape shape = shape_;
    PackedStem fresh;
    if (packed_.empty()) fresh = packed(call.input(1), call.input(2), &shape);
    const Tensor input = call.input(0);
    check_dims(input, {-1, shape.in_c, -1, -1});
    shape.batch = input.dims[0];
    shape.in_h = input.dims[2];
    shape.in_w = input.dims[3];
    if (shape.in_h < 1 || shape.in_w < 1 || shape.out_h() < 1 || shape.out_w() < 1) {
      throw Failure("'X' holds images of " + std::to_string(shape.in_h) + " x " + std::to_string(shape.in_w) +
                    ", too small for the kernel and the window even with their padding");
    }
    // No buffer of the kernel holds more.
    element_count({shape.conv_h() + 2 * shape.kernel_h, shape.conv_w(), words_for(shape.out_c) * 64},
                  "the convolution");
    std::vector<int64_t> dims{shape.batch, shape.out_h(), shape.out_w(), shape.out_c};
    element_count(dims, "the output");
    StemOutputs outputs = outputs_;
    if (y_) outputs.y = call.float_output(*y_, dims);
    if (bits_) {
      const Tensor threshold = call.input(3);
      check_length(threshold, shape.out_c);
      outputs.threshold = threshold.floats();
      dims.back() = words_for(shape.out_c);
      outputs.bits = call.word_output(*bits_, dims);
    }
    if (shape.batch == 0) return;
    if (!stem_conv2d(packed_.empty() ? fresh : packed_, input.floats(), shape, outputs, call.parallel())) {
      throw std::bad_alloc();
    }
  }

 private:
  // Sets the channels of the shape from the weights.
  PackedStem packed(const Tensor& weights, const Tensor& bias, StemShape* shape) const {
    check_dims(weights, {-1, -1, shape->kernel_h, shape->kernel_w});
    shape->out_c = weights.dims[0];
    shape->in_c = weights.dims[1];
    if (shape->out_c < 1 || shape->in_c < 1) {
      throw Failure("'W' has shape " + describe(weights.dims) + ", which leaves nothing to compute");
    }
    check_length(bias, shape->out_c);
    PackedStem stem = pack_stem(isa_, weights.floats(), bias.floats(), *shape);
    if (stem.empty()) throw std::bad_alloc();
    return stem;
  }

  Isa isa_;
  StemShape shape_;
  StemOutputs outputs_;
  std::optional<size_t> y_, bits_;
  PackedStem packed_;
};

std::unique_ptr<Kernel> create(const NodeInfo& node, const Definition& definition) {
  return std::make_unique<StemConv2d>(node, definition);
}

}  // namespace

std::vector<Definition> stem_conv2d_definitions() {
  const std::vector<TensorDefinition> plain{{"X", kFloat32}, {"W", kFloat32}, {"bias", kFloat32}};
  std::vector<TensorDefinition> with_threshold = plain;
  with_threshold.push_back({"threshold", kFloat32});
  const TensorDefinition y{"Y", kFloat32};
  const TensorDefinition bits{"Bo", kUint64};
  return {
      {"StemConv2d", plain, {y}, create},
      {"StemConv2dToBits", with_threshold, {bits}, create},
      {"StemConv2dWithBits", with_threshold, {y, bits}, create},
  };
}

}  // namespace dirnet::ort
