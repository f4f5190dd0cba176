// Binarize: X (..., C) float32, threshold (C) -> B (..., ceil(C / 64)) uint64.
#include <string>

#include "checks.h"
#include "operator.h"
#include "vector_input.h"

namespace dirnet::ort {
namespace {

class Binarize : public Kernel {
 public:
  explicit Binarize(const NodeInfo& node)
      : isa_(node.isa()), channels_(node.int_attribute("channels", 1, kLargest)), threshold_(node, 1) {
    threshold_.check_constant(channels_);
  }

  void compute(const Call& call) const override {
    const Tensor x = call.input(0);
    if (x.dims.empty() || x.dims.back() != channels_) {
      throw Failure("'X' has shape " + describe(x.dims) + " but its last axis must hold " +
                    std::to_string(channels_) + " channels");
    }
    const float* threshold = threshold_.floats(call, channels_);
    const int64_t pixels = element_count(x.dims, "X") / channels_;
    std::vector<int64_t> dims = x.dims;
    dims.back() = words_for(channels_);
    uint64_t* bits = call.word_output(0, dims);
    if (pixels > 0) binarize(isa_, x.floats(), pixels, channels_, threshold, bits, call.parallel());
  }

 private:
  Isa isa_;
  int64_t channels_;
  VectorInput threshold_;
};

}  // namespace

std::vector<Definition> binarize_definitions() {
  return {{"Binarize",
           {{"X", kFloat32}, {"threshold", kFloat32}},
           {{"B", kUint64}},
           [](const NodeInfo& node, const Definition&) -> std::unique_ptr<Kernel> {
             return std::make_unique<Binarize>(node);
           }}};
}

}  // namespace dirnet::ort
