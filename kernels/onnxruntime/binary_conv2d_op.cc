// BinaryConv2d and its forms with the work that follows folded in.
#include <new>
#include <optional>
#include <string>

#include "checks.h"
#include "operator.h"
#include "vector_input.h"
#include "weights.h"
#include "window.h"

namespace dirnet::ort {
namespace {

// Where an operator of the family has its inputs and outputs.
struct Layout {
  std::optional<size_t> slope, residual, threshold;
  std::optional<size_t> y, bits;
};

// The signature says which form it is: the operators of the family differ in nothing else.
Layout layout_of(const Definition& definition) {
  Layout layout;
  for (size_t i = 0; i < definition.inputs.size(); ++i) {
    const std::string name = definition.inputs[i].name;
    if (name == "slope") layout.slope = i;
    if (name == "residual") layout.residual = i;
    if (name == "threshold") layout.threshold = i;
  }
  for (size_t i = 0; i < definition.outputs.size(); ++i) {
    (definition.outputs[i].element_type == kFloat32 ? layout.y : layout.bits) = i;
  }
  return layout;
}

Conv2dShape read_shape(const NodeInfo& node) {
  Conv2dShape shape{};
  shape.in_c = node.int_attribute("channels", 1, kLargest);
  shape.group = node.int_attribute("group", 1, kLargest);
  if (shape.in_c % shape.group != 0) {
    throw Failure("attribute 'group' is " + std::to_string(shape.group) + ", which does not divide the " +
                  std::to_string(shape.in_c) + " channels");
  }
  read_window(node, &shape);
  const std::vector<int64_t> dilations = node.ints_attribute("dilations", 2, 1, kLargest);
  shape.dilation_h = dilations[0];
  shape.dilation_w = dilations[1];
  // A dot product is counted in 32 bits.
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  if (taps > kLargest || words_for(shape.in_c / shape.group) * 64 > kLargest / taps) {
    throw Failure("attribute 'kernel_shape' with " + std::to_string(shape.in_c / shape.group) +
                  " channels makes a dot product of more than 2^31 bits");
  }
  return shape;
}

class BinaryConv2d : public Kernel {
 public:
  BinaryConv2d(const NodeInfo& node, const Definition& definition)
      : isa_(node.isa()),
        layout_(layout_of(definition)),
        shape_(read_shape(node)),
        scale_(node, 2),
        bias_(node, 3) {
    if (layout_.threshold) threshold_ = VectorInput(node, *layout_.threshold);
    if (layout_.slope) {
      slope_ = VectorInput(node, *layout_.slope);
      epilogue_.clip_min = node.float_attribute("clip_min");
      epilogue_.clip_max = node.float_attribute("clip_max");
    }
    Tensor weights;
    if (!node.constant_input(1, &weights)) return;
    packed_ = checked_weights(isa_, weights, weight_dims(), &shape_);
    for (const VectorInput* vector : {&scale_, &bias_, &slope_, &threshold_}) {
      vector->check_constant(shape_.out_c);
    }
  }

  void compute(const Call& call) const override {
    const Tensor input = call.input(0);
    check_dims(input, {-1, -1, -1, words_for(shape_.in_c)});
    check_spare_bits(input, shape_.in_c);
    Conv2dShape shape = shape_;
    shape.batch = input.dims[0];
    shape.in_h = input.dims[1];
    shape.in_w = input.dims[2];
    PackedWeights fresh;
    if (packed_.empty()) fresh = checked_weights(isa_, call.input(1), weight_dims(), &shape);
    const std::vector<int64_t> float_dims = output_dims(shape);
    std::vector<int64_t> bit_dims = float_dims;
    bit_dims.back() = words_for(shape.out_c);

    Epilogue epilogue = epilogue_;
    epilogue.scale = scale_.floats(call, shape.out_c);
    epilogue.bias = bias_.floats(call, shape.out_c);
    if (layout_.slope) epilogue.slope = slope_.floats(call, shape.out_c);
    if (layout_.threshold) epilogue.threshold = threshold_.floats(call, shape.out_c);
    if (layout_.residual) {
      const Tensor residual = call.input(*layout_.residual);
      check_dims(residual, float_dims);
      epilogue.residual = residual.floats();
    }
    if (layout_.y) epilogue.y = call.float_output(*layout_.y, float_dims);
    if (layout_.bits) epilogue.bits = call.word_output(*layout_.bits, bit_dims);
    if (shape.batch == 0) return;
    if (!binary_conv2d(packed_.empty() ? fresh : packed_, input.words(), shape, epilogue, call.parallel())) {
      throw std::bad_alloc();
    }
  }

 private:
  std::vector<int64_t> weight_dims() const {
    return {shape_.kernel_h, shape_.kernel_w, words_for(shape_.in_c / shape_.group)};
  }

  static std::vector<int64_t> output_dims(const Conv2dShape& shape) {
    if (shape.in_h < 1 || shape.in_w < 1 || shape.out_h() < 1 || shape.out_w() < 1) {
      throw Failure("'B' holds images of " + std::to_string(shape.in_h) + " x " + std::to_string(shape.in_w) +
                    ", too small for the kernel even with its padding");
    }
    std::vector<int64_t> dims{shape.batch, shape.out_h(), shape.out_w(), shape.out_c};
    element_count(dims, "the output");
    return dims;
  }

  Isa isa_;
  Layout layout_;
  Conv2dShape shape_;
  Epilogue epilogue_;
  VectorInput scale_, bias_, slope_, threshold_;
  PackedWeights packed_;
};

std::unique_ptr<Kernel> create(const NodeInfo& node, const Definition& definition) {
  return std::make_unique<BinaryConv2d>(node, definition);
}

}  // namespace

std::vector<Definition> binary_conv2d_definitions() {
  const std::vector<TensorDefinition> plain{
      {"B", kUint64}, {"W", kUint64}, {"scale", kFloat32}, {"bias", kFloat32}};
  const TensorDefinition slope{"slope", kFloat32};
  const TensorDefinition residual{"residual", kFloat32};
  const TensorDefinition threshold{"threshold", kFloat32};
  const TensorDefinition y{"Y", kFloat32};
  const TensorDefinition bits{"Bo", kUint64};
  const auto with = [&plain](std::initializer_list<TensorDefinition> more) {
    std::vector<TensorDefinition> inputs = plain;
    inputs.insert(inputs.end(), more.begin(), more.end());
    return inputs;
  };
  return {
      {"BinaryConv2d", plain, {y}, create},
      {"BinaryConv2dAct", with({slope}), {y}, create},
      {"BinaryConv2dAddAct", with({slope, residual}), {y}, create},
      {"BinaryConv2dActToBits", with({slope, threshold}), {bits}, create},
      {"BinaryConv2dAddActToBits", with({slope, residual, threshold}), {bits}, create},
      {"BinaryConv2dActWithBits", with({slope, threshold}), {y, bits}, create},
      {"BinaryConv2dAddActWithBits", with({slope, residual, threshold}), {y, bits}, create},
  };
}

}  // namespace dirnet::ort
