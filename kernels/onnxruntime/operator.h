// What an operator of this library is, and its registration as an ONNX Runtime custom operator.
#ifndef DIRNET_ONNXRUNTIME_OPERATOR_H_
#define DIRNET_ONNXRUNTIME_OPERATOR_H_

#include <memory>
#include <vector>

#include "host.h"

namespace dirnet::ort {

// One node of a session. compute() is const: several threads may run one session at once.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void compute(const Call& call) const = 0;
};

struct Definition {
  const char* name;
  std::vector<TensorDefinition> inputs;
  std::vector<TensorDefinition> outputs;
  // Checks the attributes and the constant inputs; throws Failure for what does not fit.
  std::unique_ptr<Kernel> (*create)(const NodeInfo& node, const Definition& definition);
};

// One operator for one ISA, as ONNX Runtime sees it. Lives as long as any session that uses it.
struct Operator : CustomOp {
  Operator(const Definition& definition, Isa isa);

  const Definition* definition;
  Isa isa;
};

// Each family of operators.
std::vector<Definition> binarize_definitions();
std::vector<Definition> binary_conv2d_definitions();
std::vector<Definition> binary_gemm_definitions();
std::vector<Definition> binary_max_pool2d_definitions();
std::vector<Definition> stem_conv2d_definitions();

}  // namespace dirnet::ort

#endif  // DIRNET_ONNXRUNTIME_OPERATOR_H_
