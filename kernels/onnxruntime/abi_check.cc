// Compares own_abi.h with ONNX Runtime's own header, at compile time; built only with the tests, and where
// that header is installed.
#include <onnxruntime_c_api.h>

#include <cstddef>
#include <type_traits>

#include "own_abi.h"

#if defined(__GNUC__)
// The real declarations carry warn_unused_result, which is no part of the type.
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif

// An older header lacks members that own_abi.h declares, and is of no use for a comparison.
#if ORT_API_VERSION >= 18

namespace {

// The types under which the real header and our declaration mean the same: enumerations travel as int, and
// the two tables have a name of their own here.
template <class T>
struct Plain {
  using type = std::conditional_t<std::is_enum_v<T>, int, T>;
};
template <class T>
struct Plain<T*> {
  using type = std::conditional_t<std::is_enum_v<T>, int, T>*;
};
template <>
struct Plain<const OrtApi*> {
  using type = const dirnet::ort::Api*;
};
template <>
struct Plain<const OrtCustomOp*> {
  using type = const dirnet::ort::CustomOp*;
};

template <class T>
struct Signature;
template <class R, class... A>
struct Signature<R (*)(A...)> {
  using type = typename Plain<R>::type (*)(typename Plain<A>::type...);
};
template <class R, class... A>
struct Signature<R (*)(A...) noexcept> : Signature<R (*)(A...)> {};

#define DIRNET_SAME(own, real, member)                                                                 \
  static_assert(offsetof(own, member) == offsetof(real, member), #member " is in another place");      \
  static_assert(                                                                                       \
      std::is_same_v<Signature<decltype(own::member)>::type, Signature<decltype(real::member)>::type>, \
      #member " has another signature")
#define DIRNET_SAME_API(member) DIRNET_SAME(dirnet::ort::Api, OrtApi, member)
#define DIRNET_SAME_OP(member) DIRNET_SAME(dirnet::ort::CustomOp, OrtCustomOp, member)

DIRNET_SAME_API(CreateStatus);
DIRNET_SAME_API(GetErrorMessage);
DIRNET_SAME_API(CreateCustomOpDomain);
DIRNET_SAME_API(CustomOpDomain_Add);
DIRNET_SAME_API(AddCustomOpDomain);
DIRNET_SAME_API(GetTensorMutableData);
DIRNET_SAME_API(GetTensorElementType);
DIRNET_SAME_API(GetDimensionsCount);
DIRNET_SAME_API(GetDimensions);
DIRNET_SAME_API(GetTensorTypeAndShape);
DIRNET_SAME_API(KernelInfoGetAttribute_float);
DIRNET_SAME_API(KernelInfoGetAttribute_int64);
DIRNET_SAME_API(KernelContext_GetInputCount);
DIRNET_SAME_API(KernelContext_GetInput);
DIRNET_SAME_API(KernelContext_GetOutput);
DIRNET_SAME_API(ReleaseStatus);
DIRNET_SAME_API(ReleaseTensorTypeAndShapeInfo);
DIRNET_SAME_API(KernelInfoGetAttributeArray_int64);
DIRNET_SAME_API(HasSessionConfigEntry);
DIRNET_SAME_API(GetSessionConfigEntry);
DIRNET_SAME_API(KernelInfo_GetNodeName);
DIRNET_SAME_API(KernelInfoGetConstantInput_tensor);
DIRNET_SAME_API(KernelContext_ParallelFor);
DIRNET_SAME_API(CreateEnv);
DIRNET_SAME_API(CreateSession);
DIRNET_SAME_API(Run);
DIRNET_SAME_API(CreateSessionOptions);
DIRNET_SAME_API(EnableProfiling);
DIRNET_SAME_API(SetIntraOpNumThreads);
DIRNET_SAME_API(RegisterCustomOpsLibrary);
DIRNET_SAME_API(CreateTensorWithDataAsOrtValue);
DIRNET_SAME_API(CreateCpuMemoryInfo);
DIRNET_SAME_API(GetAllocatorWithDefaultOptions);
DIRNET_SAME_API(ReleaseMemoryInfo);
DIRNET_SAME_API(ReleaseSession);
DIRNET_SAME_API(ReleaseValue);
DIRNET_SAME_API(ReleaseSessionOptions);
DIRNET_SAME_API(SessionEndProfiling);

DIRNET_SAME_OP(CreateKernel);
DIRNET_SAME_OP(GetName);
DIRNET_SAME_OP(GetExecutionProviderType);
DIRNET_SAME_OP(GetInputType);
DIRNET_SAME_OP(GetInputTypeCount);
DIRNET_SAME_OP(GetOutputType);
DIRNET_SAME_OP(GetOutputTypeCount);
DIRNET_SAME_OP(KernelCompute);
DIRNET_SAME_OP(KernelDestroy);
DIRNET_SAME_OP(GetInputCharacteristic);
DIRNET_SAME_OP(GetOutputCharacteristic);
DIRNET_SAME_OP(GetInputMemoryType);
DIRNET_SAME_OP(GetVariadicInputMinArity);
DIRNET_SAME_OP(GetVariadicInputHomogeneity);
DIRNET_SAME_OP(GetVariadicOutputMinArity);
DIRNET_SAME_OP(GetVariadicOutputHomogeneity);
DIRNET_SAME_OP(CreateKernelV2);
DIRNET_SAME_OP(KernelComputeV2);
DIRNET_SAME_OP(InferOutputShapeFn);
DIRNET_SAME_OP(GetStartVersion);
DIRNET_SAME_OP(GetEndVersion);
DIRNET_SAME_OP(GetMayInplace);
DIRNET_SAME_OP(ReleaseMayInplace);
DIRNET_SAME_OP(GetAliasMap);
DIRNET_SAME_OP(ReleaseAliasMap);

static_assert(offsetof(dirnet::ort::CustomOp, version) == offsetof(OrtCustomOp, version));
static_assert(offsetof(dirnet::ort::ApiBase, GetApi) == offsetof(OrtApiBase, GetApi));
static_assert(offsetof(dirnet::ort::ApiBase, GetVersionString) == offsetof(OrtApiBase, GetVersionString));
static_assert(dirnet::ort::kFail == ORT_FAIL);
static_assert(dirnet::ort::kInvalidArgument == ORT_INVALID_ARGUMENT);
static_assert(dirnet::ort::kFloat32 == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
static_assert(dirnet::ort::kInt8 == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8);
static_assert(dirnet::ort::kUint64 == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64);
static_assert(dirnet::ort::kRequired == INPUT_OUTPUT_REQUIRED);
static_assert(dirnet::ort::kDefaultMemory == OrtMemTypeDefault);
static_assert(dirnet::ort::kErrorsOnly == ORT_LOGGING_LEVEL_ERROR);
static_assert(dirnet::ort::kArenaAllocator == OrtArenaAllocator);

}  // namespace

#endif  // ORT_API_VERSION >= 18
