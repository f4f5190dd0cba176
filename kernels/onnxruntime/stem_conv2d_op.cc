// StemConv2d, StemConv2dInt8 and their forms with a PReLU: X (N, C, H, W) float -> Y (N, Ho, Wo, O) float,
// its bits, or both.
#include <cmath>
#include <initializer_list>
#include <new>
#include <optional>
#include <string>

#include "checks.h"
#include "dirnet/stem.h"
#include "operator.h"
#include "vector_input.h"
#include "window.h"

namespace dirnet::ort {
namespace {

StemShape read_shape(const NodeInfo& node) {
  StemShape shape{};
  read_window(node, &shape);
  const std::vector<int64_t> pool = node.ints_attribute("pool_kernel_shape", 2, 1, kLargest);
  const std::vector<int64_t> pool_strides = node.ints_attribute("pool_strides", 2, 1, kLargest);
  const std::vector<int64_t> pool_pads = node.ints_attribute("pool_pads", 4, 0, kLargest);
  for (size_t i = 0; i < pool_pads.size(); ++i) {
    if (pool_pads[i] < pool[i % 2]) continue;
    throw Failure("attribute 'pool_pads' holds " + std::to_string(pool_pads[i]) +
                  ", which is not smaller than the window");
  }
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

// Where an operator of the family has its inputs; only weights of bytes have a scale.
struct Layout {
  std::optional<size_t> scale, slope, threshold;
  size_t bias = 0;
};

Layout layout_of(const Definition& definition) {
  Layout layout;
  for (size_t i = 0; i < definition.inputs.size(); ++i) {
    const std::string name = definition.inputs[i].name;
    if (name == "scale") layout.scale = i;
    if (name == "bias") layout.bias = i;
    if (name == "slope") layout.slope = i;
    if (name == "threshold") layout.threshold = i;
  }
  return layout;
}

StemQuantization read_quantization(const NodeInfo& node) {
  StemQuantization quantization;
  quantization.scale = node.float_attribute("input_scale");
  if (!(quantization.scale > 0.0F) || std::isinf(quantization.scale)) {
    throw Failure("attribute 'input_scale' is " + std::to_string(quantization.scale) +
                  "; it has to be positive and finite");
  }
  quantization.zero_point = static_cast<int32_t>(node.int_attribute("input_zero_point", 0, 255));
  return quantization;
}

class StemConv2d : public Kernel {
 public:
  StemConv2d(const NodeInfo& node, const Definition& definition)
      : isa_(node.isa()), layout_(layout_of(definition)), shape_(read_shape(node)) {
    if (layout_.scale) quantization_ = read_quantization(node);
    if (layout_.slope) slope_ = VectorInput(node, *layout_.slope);
    if (layout_.threshold) threshold_ = VectorInput(node, *layout_.threshold);
    for (size_t i = 0; i < definition.outputs.size(); ++i) {
      (definition.outputs[i].element_type == kFloat32 ? y_ : bits_) = i;
    }
    outputs_.clip_min = node.float_attribute("clip_min");
    outputs_.clip_max = node.float_attribute("clip_max");
    Tensor weights;
    Tensor scale;
    Tensor bias;
    if (node.constant_input(1, &weights) && node.constant_input(layout_.bias, &bias) &&
        (!layout_.scale || node.constant_input(*layout_.scale, &scale))) {
      packed_ = packed(weights, scale, bias, &shape_);
      slope_.check_constant(shape_.out_c);
      threshold_.check_constant(shape_.out_c);
    }
  }

  void compute(const Call& call) const override {
    StemShape shape = shape_;
    PackedStem fresh;
    if (packed_.empty()) {
      const Tensor scale = layout_.scale ? call.input(*layout_.scale) : Tensor{};
      fresh = packed(call.input(1), scale, call.input(layout_.bias), &shape);
    }
    const Tensor input = call.input(0);
    check_dims(input, {-1, shape.in_c, -1, -1});
    shape.batch = input.dims[0];
    shape.in_h = input.dims[2];
    shape.in_w = input.dims[3];
    if (shape.in_h < 1 || shape.in_w < 1 || shape.out_h() < 1 || shape.out_w() < 1) {
      throw Failure("'X' holds images of " + std::to_string(shape.in_h) + " x " + std::to_string(shape.in_w) +
                    ", too small for the kernel and the window even with their padding");
    }
    if (!stem_buffers_fit(shape)) {
      throw Failure("'X' holds images of " + std::to_string(shape.in_h) + " x " + std::to_string(shape.in_w) +
                    ", which become too large with their padding");
    }
    std::vector<int64_t> dims{shape.batch, shape.out_h(), shape.out_w(), shape.out_c};
    element_count(dims, "the output");
    StemOutputs outputs = outputs_;
    if (layout_.slope) outputs.slope = slope_.floats(call, shape.out_c);
    if (y_) outputs.y = call.float_output(*y_, dims);
    if (bits_) {
      outputs.threshold = threshold_.floats(call, shape.out_c);
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
  PackedStem packed(const Tensor& weights, const Tensor& scale, const Tensor& bias, StemShape* shape) const {
    check_dims(weights, {-1, -1, shape->kernel_h, shape->kernel_w});
    shape->out_c = weights.dims[0];
    shape->in_c = weights.dims[1];
    if (shape->out_c < 1 || shape->in_c < 1) {
      throw Failure("'W' has shape " + describe(weights.dims) + ", which leaves nothing to compute");
    }
    check_length(bias, shape->out_c);
    PackedStem stem;
    if (layout_.scale) {
      check_length(scale, shape->out_c);
      check_int8_taps(*shape);
      stem = pack_int8_stem(isa_, weights.bytes(), scale.floats(), bias.floats(), quantization_, *shape);
    } else {
      stem = pack_stem(isa_, weights.floats(), bias.floats(), *shape);
    }
    if (stem.empty()) throw std::bad_alloc();
    return stem;
  }

  // A sum is taken in 32 bits.
  static void check_int8_taps(const StemShape& shape) {
    const int64_t taps = shape.kernel_h * shape.kernel_w;
    if (taps <= kMostInt8Taps && shape.in_c <= kMostInt8Taps / taps) return;
    throw Failure("'W' has more than " + std::to_string(kMostInt8Taps) + " taps to an output");
  }

  Isa isa_;
  Layout layout_;
  StemShape shape_;
  StemQuantization quantization_;
  StemOutputs outputs_;
  std::optional<size_t> y_, bits_;
  VectorInput slope_, threshold_;
  PackedStem packed_;
};

std::unique_ptr<Kernel> create(const NodeInfo& node, const Definition& definition) {
  return std::make_unique<StemConv2d>(node, definition);
}

}  // namespace

std::vector<Definition> stem_conv2d_definitions() {
  const std::vector<TensorDefinition> floats{{"X", kFloat32}, {"W", kFloat32}, {"bias", kFloat32}};
  const std::vector<TensorDefinition> bytes{
      {"X", kFloat32}, {"W", kInt8}, {"scale", kFloat32}, {"bias", kFloat32}};
  const auto with = [](std::vector<TensorDefinition> inputs, std::initializer_list<const char*> vectors) {
    for (const char* name : vectors) inputs.push_back({name, kFloat32});
    return inputs;
  };
  const TensorDefinition y{"Y", kFloat32};
  const TensorDefinition bits{"Bo", kUint64};
  return {
      {"StemConv2d", floats, {y}, create},
      {"StemConv2dToBits", with(floats, {"threshold"}), {bits}, create},
      {"StemConv2dWithBits", with(floats, {"threshold"}), {y, bits}, create},
      {"StemConv2dPRelu", with(floats, {"slope"}), {y}, create},
      {"StemConv2dPReluToBits", with(floats, {"slope", "threshold"}), {bits}, create},
      {"StemConv2dPReluWithBits", with(floats, {"slope", "threshold"}), {y, bits}, create},
      {"StemConv2dInt8", bytes, {y}, create},
      {"StemConv2dInt8ToBits", with(bytes, {"threshold"}), {bits}, create},
      {"StemConv2dInt8WithBits", with(bytes, {"threshold"}), {y, bits}, create},
      {"StemConv2dInt8PRelu", with(bytes, {"slope"}), {y}, create},
      {"StemConv2dInt8PReluToBits", with(bytes, {"slope", "threshold"}), {bits}, create},
      {"StemConv2dInt8PReluWithBits", with(bytes, {"slope", "threshold"}), {y, bits}, create},
  };
}

}  // namespace dirnet::ort
