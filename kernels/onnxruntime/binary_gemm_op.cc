// BinaryGemm: B (..., Cw) uint64, W (O, Cw) uint64, scale (O), bias (O) -> Y (..., O) float32.
#include <new>
#include <string>

#include "checks.h"
#include "operator.h"
#include "vector_input.h"
#include "weights.h"

namespace dirnet::ort {
namespace {

class BinaryGemm : public Kernel {
 public:
  explicit BinaryGemm(const NodeInfo& node) : isa_(node.isa()), scale_(node, 2), bias_(node, 3) {
    const int64_t channels = node.int_attribute("channels", 1, kLargest);
    // A matrix product is a 1x1 convolution whose every row is an image of one pixel.
    shape_ = {0, 1, 1, channels, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1};
    Tensor weights;
    if (!node.constant_input(1, &weights)) return;
    packed_ = checked_weights(isa_, weights, {words_for(channels)}, &shape_);
    scale_.check_constant(shape_.out_c);
    bias_.check_constant(shape_.out_c);
  }

  void compute(const Call& call) const override {
    const Tensor input = call.input(0);
    const int64_t words = words_for(shape_.in_c);
    if (input.dims.empty() || input.dims.back() != words) {
      throw Failure("'B' has shape " + describe(input.dims) + " but its last axis must hold " +
                    std::to_string(words) + " words of " + std::to_string(shape_.in_c) + " channels");
    }
    check_spare_bits(input, shape_.in_c);
    Conv2dShape shape = shape_;
    shape.batch = element_count(input.dims, "B") / words;
    PackedWeights fresh;
    if (packed_.empty()) fresh = checked_weights(isa_, call.input(1), {words}, &shape);
    std::vector<int64_t> dims = input.dims;
    dims.back() = shape.out_c;
    element_count(dims, "Y");
    Epilogue epilogue;
    epilogue.scale = scale_.floats(call, shape.out_c);
    epilogue.bias = bias_.floats(call, shape.out_c);
    epilogue.y = call.float_output(0, dims);
    if (shape.batch == 0) return;
    if (!binary_conv2d(packed_.empty() ? fresh : packed_, input.words(), shape, epilogue, call.parallel())) {
      throw std::bad_alloc();
    }
  }

 private:
  Isa isa_;
  Conv2dShape shape_{};
  PackedWeights packed_;
  VectorInput scale_, bias_;
};

}  // namespace

std::vector<Definition> binary_gemm_definitions() {
  return {{"BinaryGemm",
           {{"B", kUint64}, {"W", kUint64}, {"scale", kFloat32}, {"bias", kFloat32}},
           {{"Y", kFloat32}},
           [](const NodeInfo& node, const Definition&) -> std::unique_ptr<Kernel> {
             return std::make_unique<BinaryGemm>(node);
           }}};
}

}  // namespace dirnet::ort
