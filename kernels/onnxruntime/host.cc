#include "host.h"

#include <cmath>
#include <memory>

namespace dirnet::ort {
namespace {

std::string quoted(const char* name) { return "'" + std::string(name) + "'"; }

// A status that says whether a call worked; its text is not wanted.
bool worked(const Api& api, OrtStatus* status) {
  if (status == nullptr) return true;
  api.ReleaseStatus(status);
  return false;
}

[[noreturn]] void fail_missing(const char* name) {
  throw Failure("attribute " + quoted(name) + " is missing or of another type");
}

void check_range(const char* name, int64_t value, int64_t lowest, int64_t highest) {
  if (value < lowest || value > highest) {
    throw Failure("attribute " + quoted(name) + " holds " + std::to_string(value) + ", outside " +
                  std::to_string(lowest) + " to " + std::to_string(highest));
  }
}

const char* type_name(int element_type) {
  switch (element_type) {
    case kFloat32:
      return "float32";
    case kInt8:
      return "int8";
    default:
      return "uint64";
  }
}

Tensor view(const Api& api, const OrtValue* value, const TensorDefinition& definition) {
  if (value == nullptr) throw Failure("input " + quoted(definition.name) + " is missing");
  OrtTensorTypeAndShapeInfo* raw = nullptr;
  check(api, api.GetTensorTypeAndShape(value, &raw));
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(api.ReleaseTensorTypeAndShapeInfo)> info(
      raw, api.ReleaseTensorTypeAndShapeInfo);
  int type = 0;
  check(api, api.GetTensorElementType(info.get(), &type));
  if (type != definition.element_type) {
    throw Failure("input " + quoted(definition.name) + " must hold " + type_name(definition.element_type));
  }
  Tensor tensor;
  tensor.name = definition.name;
  size_t rank = 0;
  check(api, api.GetDimensionsCount(info.get(), &rank));
  tensor.dims.resize(rank);
  check(api, api.GetDimensions(info.get(), tensor.dims.data(), rank));
  // The only accessor asks for a mutable value; nothing here writes to an input.
  void* data = nullptr;
  check(api, api.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  tensor.data = data;
  return tensor;
}

struct Job {
  void (*task)(void*, int64_t);
  void* arg;
};

void run_item(void* data, size_t index) {
  const Job* job = static_cast<const Job*>(data);
  job->task(job->arg, static_cast<int64_t>(index));
}

}  // namespace

void check(const Api& api, OrtStatus* status) {
  if (status == nullptr) return;
  const std::unique_ptr<OrtStatus, decltype(api.ReleaseStatus)> owned(status, api.ReleaseStatus);
  throw Failure(api.GetErrorMessage(status));
}

std::string describe(const std::vector<int64_t>& dims) {
  std::string text = "(";
  for (size_t i = 0; i < dims.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(dims[i]);
  return text + ")";
}

std::string NodeInfo::node_name() const {
  // Asked without a buffer, ONNX Runtime tells the length with its closing zero.
  size_t size = 0;
  if (!worked(api_, api_.KernelInfo_GetNodeName(info_, nullptr, &size)) || size <= 1) return {};
  std::string name(size, '\0');
  if (!worked(api_, api_.KernelInfo_GetNodeName(info_, name.data(), &size))) return {};
  name.resize(size - 1);
  return name;
}

int64_t NodeInfo::int_attribute(const char* name, int64_t lowest, int64_t highest) const {
  int64_t value = 0;
  if (!worked(api_, api_.KernelInfoGetAttribute_int64(info_, name, &value))) fail_missing(name);
  check_range(name, value, lowest, highest);
  return value;
}

float NodeInfo::float_attribute(const char* name) const {
  float value = 0;
  if (!worked(api_, api_.KernelInfoGetAttribute_float(info_, name, &value))) fail_missing(name);
  if (std::isnan(value)) throw Failure("attribute " + quoted(name) + " is not a number");
  return value;
}

std::vector<int64_t> NodeInfo::ints_attribute(const char* name, size_t length, int64_t lowest,
                                              int64_t highest) const {
  size_t size = 0;
  if (!worked(api_, api_.KernelInfoGetAttributeArray_int64(info_, name, nullptr, &size))) fail_missing(name);
  if (size != length) {
    throw Failure("attribute " + quoted(name) + " holds " + std::to_string(size) + " numbers instead of " +
                  std::to_string(length));
  }
  std::vector<int64_t> values(size);
  if (!worked(api_, api_.KernelInfoGetAttributeArray_int64(info_, name, values.data(), &size)))
    fail_missing(name);
  for (const int64_t value : values) check_range(name, value, lowest, highest);
  return values;
}

bool NodeInfo::constant_input(size_t index, Tensor* tensor) const {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  check(api_, api_.KernelInfoGetConstantInput_tensor(info_, index, &is_constant, &value));
  if (is_constant == 0 || value == nullptr) return false;
  *tensor = view(api_, value, inputs_[index]);
  return true;
}

Tensor Call::input(size_t index) const {
  size_t count = 0;
  check(api_, api_.KernelContext_GetInputCount(context_, &count));
  if (index >= count) throw Failure("input " + quoted(inputs_[index].name) + " is missing");
  const OrtValue* value = nullptr;
  check(api_, api_.KernelContext_GetInput(context_, index, &value));
  return view(api_, value, inputs_[index]);
}

void* Call::output(size_t index, const std::vector<int64_t>& dims) const {
  OrtValue* value = nullptr;
  check(api_, api_.KernelContext_GetOutput(context_, index, dims.data(), dims.size(), &value));
  if (value == nullptr) throw Failure("output " + std::to_string(index) + " is missing");
  void* data = nullptr;
  check(api_, api_.GetTensorMutableData(value, &data));
  return data;
}

float* Call::float_output(size_t index, const std::vector<int64_t>& dims) const {
  return static_cast<float*>(output(index, dims));
}

uint64_t* Call::word_output(size_t index, const std::vector<int64_t>& dims) const {
  return static_cast<uint64_t*>(output(index, dims));
}

void Call::run_parallel(void* context, int64_t items, void (*task)(void*, int64_t), void* arg) {
  const Call* call = static_cast<const Call*>(context);
  Job job{task, arg};
  if (items > 1) {
    // 0 batches: ONNX Runtime cuts the work into as many as its pool has threads.
    OrtStatus* status =
        call->api_.KernelContext_ParallelFor(call->context_, run_item, static_cast<size_t>(items), 0, &job);
    if (status == nullptr) return;
    // No task throws, so what failed is the call itself: nothing has run, and the work is still to be done.
    call->api_.ReleaseStatus(status);
  }
  for (int64_t item = 0; item < items; ++item) task(arg, item);
}

Parallel Call::parallel() const {
  Parallel parallel;
  parallel.context = const_cast<Call*>(this);
  parallel.run = run_parallel;
  return parallel;
}

}  // namespace dirnet::ort
