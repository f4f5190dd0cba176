#include "operator.h"

#include <cstring>
#include <exception>
#include <new>
#include <string>

namespace dirnet::ort {
namespace {

// A kernel with what is needed to report on it.
struct Instance {
  const Api* api;
  const Definition* definition;
  std::string node_name;
  std::unique_ptr<Kernel> kernel;
};

const Definition& definition_of(const CustomOp* op) { return *static_cast<const Operator*>(op)->definition; }

OrtStatus* report(const Api& api, const Definition& definition, const std::string& node_name,
                  const char* what) {
  std::string text = definition.name;
  if (!node_name.empty()) text += " (node '" + node_name + "')";
  return api.CreateStatus(kInvalidArgument, (text + ": " + what).c_str());
}

// Runs `work` and turns whatever it throws into a status; nothing is thrown through ONNX Runtime's C frames.
template <class Work>
OrtStatus* guarded(const Api& api, const Definition& definition, const std::string& node_name,
                   Work work) noexcept {
  try {
    work();
    return nullptr;
  } catch (const std::bad_alloc&) {
    return api.CreateStatus(kFail, "dirnet: out of memory");
  } catch (const std::exception& failure) {
    try {
      return report(api, definition, node_name, failure.what());
    } catch (const std::exception&) {
      return api.CreateStatus(kFail, "dirnet: out of memory");
    }
  }
}

// Where the forms of BinaryConv2d that add a residual have it, and its sum.
constexpr int kResidual = 5;
constexpr int kSum = 0;

// Whether an output of floats has the residual's place and shape.
bool adds_residual(const Definition& d) {
  return d.inputs.size() > kResidual && std::strcmp(d.inputs[kResidual].name, "residual") == 0 &&
         d.outputs[kSum].element_type == kFloat32;
}

const char* DIRNET_ORT_CALL get_name(const CustomOp* op) { return definition_of(op).name; }
const char* DIRNET_ORT_CALL get_provider(const CustomOp*) { return nullptr; }  // null means the CPU
size_t DIRNET_ORT_CALL input_count(const CustomOp* op) { return definition_of(op).inputs.size(); }
size_t DIRNET_ORT_CALL output_count(const CustomOp* op) { return definition_of(op).outputs.size(); }
int DIRNET_ORT_CALL input_type(const CustomOp* op, size_t i) {
  return definition_of(op).inputs[i].element_type;
}
int DIRNET_ORT_CALL output_type(const CustomOp* op, size_t i) {
  return definition_of(op).outputs[i].element_type;
}
int DIRNET_ORT_CALL required(const CustomOp*, size_t) { return kRequired; }
int DIRNET_ORT_CALL default_memory(const CustomOp*, size_t) { return kDefaultMemory; }
int DIRNET_ORT_CALL one(const CustomOp*) { return 1; }

OrtStatus* DIRNET_ORT_CALL create_kernel(const CustomOp* op, const Api* api, const OrtKernelInfo* info,
                                         void** kernel) {
  const Definition& definition = definition_of(op);
  std::string node_name;
  return guarded(*api, definition, node_name, [&] {
    const NodeInfo node(*api, info, definition.inputs, static_cast<const Operator*>(op)->isa);
    node_name = node.node_name();
    auto instance = std::make_unique<Instance>();
    instance->api = api;
    instance->definition = &definition;
    instance->node_name = node_name;
    instance->kernel = definition.create(node, definition);
    *kernel = instance.release();
  });
}

OrtStatus* DIRNET_ORT_CALL compute_kernel(void* kernel, OrtKernelContext* context) {
  const Instance& instance = *static_cast<const Instance*>(kernel);
  return guarded(*instance.api, *instance.definition, instance.node_name, [&] {
    instance.kernel->compute(Call(*instance.api, context, instance.definition->inputs));
  });
}

// The sum may take the place of a residual that nothing else reads: a tile reads its part before it writes
// it.
size_t DIRNET_ORT_CALL residual_in_place(int** input_index, int** output_index) {
  static int input = kResidual;
  static int output = kSum;
  *input_index = &input;
  *output_index = &output;
  return 1;
}
void DIRNET_ORT_CALL keep_indices(int*, int*) {}

void DIRNET_ORT_CALL destroy_kernel(void* kernel) { delete static_cast<Instance*>(kernel); }

}  // namespace

Operator::Operator(const Definition& the_definition, Isa the_isa)
    : CustomOp(), definition(&the_definition), isa(the_isa) {
  version = kApiVersion;
  GetName = get_name;
  GetExecutionProviderType = get_provider;
  GetInputType = input_type;
  GetInputTypeCount = input_count;
  GetOutputType = output_type;
  GetOutputTypeCount = output_count;
  KernelDestroy = destroy_kernel;
  GetInputCharacteristic = required;
  GetOutputCharacteristic = required;
  GetInputMemoryType = default_memory;
  GetVariadicInputMinArity = one;
  GetVariadicInputHomogeneity = one;
  GetVariadicOutputMinArity = one;
  GetVariadicOutputHomogeneity = one;
  CreateKernelV2 = create_kernel;
  KernelComputeV2 = compute_kernel;
  GetStartVersion = one;
  GetEndVersion = one;
  if (adds_residual(the_definition)) {
    GetMayInplace = residual_in_place;
    ReleaseMayInplace = keep_indices;
  }
}

}  // namespace dirnet::ort
