// An input of one number for each channel.
#ifndef DIRNET_ONNXRUNTIME_VECTOR_INPUT_H_
#define DIRNET_ONNXRUNTIME_VECTOR_INPUT_H_

#include "checks.h"
#include "host.h"

namespace dirnet::ort {

// Read once where it is a constant of the model: ONNX Runtime makes an object for the type and shape of each
// tensor that is asked for, which a small layer feels in every call.
class VectorInput {
 public:
  VectorInput() = default;
  VectorInput(const NodeInfo& node, size_t index) : index_(index) { node.constant_input(index, &constant_); }

  // Throws Failure where a constant holds another number of floats.
  void check_constant(int64_t length) const {
    if (constant_.data != nullptr) check_length(constant_, length);
  }

  // `length` numbers that live as long as the call, or Failure.
  const float* floats(const Call& call, int64_t length) const {
    if (constant_.data == nullptr) {
      const Tensor tensor = call.input(index_);
      check_length(tensor, length);
      return tensor.floats();
    }
    check_length(constant_, length);
    return constant_.floats();
  }

 private:
  size_t index_ = 0;
  Tensor constant_;
};

}  // namespace dirnet::ort

#endif  // DIRNET_ONNXRUNTIME_VECTOR_INPUT_H_
