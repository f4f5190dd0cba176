// A thin C++ face of ONNX Runtime's C interface: attributes, tensors, threads, and failures as exceptions
// that never leave this folder (operator.cc turns them into an OrtStatus).
#ifndef DIRNET_ONNXRUNTIME_HOST_H_
#define DIRNET_ONNXRUNTIME_HOST_H_

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "dirnet/dirnet.h"
#include "own_abi.h"

namespace dirnet::ort {

// What does not fit, in words for the person who loads the model.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws Failure when ONNX Runtime reports an error; the status is released.
void check(const Api& api, OrtStatus* status);

// A tensor that ONNX Runtime owns. `name` is the operator's name for it.
struct Tensor {
  const char* name = nullptr;
  std::vector<int64_t> dims;
  const void* data = nullptr;

  const float* floats() const { return static_cast<const float*>(data); }
  const int8_t* bytes() const { return static_cast<const int8_t*>(data); }
  const uint64_t* words() const { return static_cast<const uint64_t*>(data); }
};

// "(2, 3, 4)"
std::string describe(const std::vector<int64_t>& dims);

struct TensorDefinition {
  const char* name;
  int element_type;
};

// A node while its kernel is being created.
class NodeInfo {
 public:
  NodeInfo(const Api& api, const OrtKernelInfo* info, const std::vector<TensorDefinition>& inputs, Isa isa)
      : api_(api), info_(info), inputs_(inputs), isa_(isa) {}

  Isa isa() const { return isa_; }
  // The node's name in the model, possibly empty.
  std::string node_name() const;
  int64_t int_attribute(const char* name, int64_t lowest, int64_t highest) const;
  float float_attribute(const char* name) const;
  // Exactly `length` numbers, each within the bounds.
  std::vector<int64_t> ints_attribute(const char* name, size_t length, int64_t lowest, int64_t highest) const;
  // True when the input is a constant of the model; then `tensor` is set and lives as long as the session.
  bool constant_input(size_t index, Tensor* tensor) const;

 private:
  const Api& api_;
  const OrtKernelInfo* info_;
  const std::vector<TensorDefinition>& inputs_;
  Isa isa_;
};

// One call of a kernel.
class Call {
 public:
  Call(const Api& api, OrtKernelContext* context, const std::vector<TensorDefinition>& inputs)
      : api_(api), context_(context), inputs_(inputs) {}

  Tensor input(size_t index) const;
  float* float_output(size_t index, const std::vector<int64_t>& dims) const;
  uint64_t* word_output(size_t index, const std::vector<int64_t>& dims) const;
  // ONNX Runtime's own thread pool; valid while this object is.
  Parallel parallel() const;

 private:
  static void run_parallel(void* context, int64_t items, void (*task)(void*, int64_t), void* arg);
  void* output(size_t index, const std::vector<int64_t>& dims) const;

  const Api& api_;
  OrtKernelContext* context_;
  const std::vector<TensorDefinition>& inputs_;
};

}  // namespace dirnet::ort

#endif  // DIRNET_ONNXRUNTIME_HOST_H_
