// The part of ONNX Runtime's C interface that these operators and the runner use, declared here so that
// building needs no ONNX Runtime header. Slots never move: ONNX Runtime asserts the size of each released
// version of its table. Version 18 is the lowest that has every slot below. abi_check.cc compares positions
// and signatures with a real header.
#ifndef DIRNET_ONNXRUNTIME_OWN_ABI_H_
#define DIRNET_ONNXRUNTIME_OWN_ABI_H_

#include <cstddef>
#include <cstdint>

#if defined(_WIN32)
#define DIRNET_ORT_CALL __stdcall
#else
#define DIRNET_ORT_CALL
#endif

struct OrtStatus;
struct OrtValue;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtCustomOpDomain;
struct OrtSessionOptions;
struct OrtTensorTypeAndShapeInfo;
struct OrtShapeInferContext;
struct OrtEnv;
struct OrtSession;
struct OrtRunOptions;
struct OrtMemoryInfo;
struct OrtAllocator;

namespace dirnet::ort {

#if defined(_WIN32)
using PathChar = wchar_t;
#else
using PathChar = char;
#endif

constexpr uint32_t kApiVersion = 18;

// Enumerators of ONNX Runtime, which its C interface passes as int.
constexpr int kFail = 1;
constexpr int kInvalidArgument = 2;
constexpr int kFloat32 = 1;
constexpr int kInt8 = 3;
constexpr int kUint64 = 13;
constexpr int kRequired = 0;
constexpr int kDefaultMemory = 0;
constexpr int kErrorsOnly = 3;
constexpr int kArenaAllocator = 1;

// The table of functions; `unused` members only keep the distance.
struct Api {
  OrtStatus*(DIRNET_ORT_CALL* CreateStatus)(int code, const char* message);  // slot 0
  void* unused_1[1];
  const char*(DIRNET_ORT_CALL* GetErrorMessage)(const OrtStatus* status);  // slot 2
  OrtStatus*(DIRNET_ORT_CALL* CreateEnv)(int log_level, const char* log_id, OrtEnv** out);
  void* unused_4[3];
  OrtStatus*(DIRNET_ORT_CALL* CreateSession)(const OrtEnv* env, const PathChar* model_path,
                                             const OrtSessionOptions* options, OrtSession** out);  // slot 7
  void* unused_8[1];
  OrtStatus*(DIRNET_ORT_CALL* Run)(OrtSession* session, const OrtRunOptions* options,
                                   const char* const* input_names, const OrtValue* const* inputs,
                                   size_t input_count, const char* const* output_names, size_t output_count,
                                   OrtValue** outputs);  // slot 9
  OrtStatus*(DIRNET_ORT_CALL* CreateSessionOptions)(OrtSessionOptions** out);
  void* unused_11[3];
  OrtStatus*(DIRNET_ORT_CALL* EnableProfiling)(OrtSessionOptions* options,
                                               const PathChar* prefix);  // slot 14
  void* unused_15[9];
  OrtStatus*(DIRNET_ORT_CALL* SetIntraOpNumThreads)(OrtSessionOptions* options, int threads);  // slot 24
  void* unused_25[1];
  OrtStatus*(DIRNET_ORT_CALL* CreateCustomOpDomain)(const char* name, OrtCustomOpDomain** out);  // slot 26
  OrtStatus*(DIRNET_ORT_CALL* CustomOpDomain_Add)(OrtCustomOpDomain* domain, const struct CustomOp* op);
  OrtStatus*(DIRNET_ORT_CALL* AddCustomOpDomain)(OrtSessionOptions* options, OrtCustomOpDomain* domain);
  OrtStatus*(DIRNET_ORT_CALL* RegisterCustomOpsLibrary)(OrtSessionOptions* options, const char* path,
                                                        void** library);  // slot 29
  void* unused_30[19];
  OrtStatus*(DIRNET_ORT_CALL* CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo* memory, void* data,
                                                              size_t bytes, const int64_t* dims, size_t rank,
                                                              int type, OrtValue** out);  // slot 49
  void* unused_50[1];
  OrtStatus*(DIRNET_ORT_CALL* GetTensorMutableData)(OrtValue* value, void** out);  // slot 51
  void* unused_52[8];
  OrtStatus*(DIRNET_ORT_CALL* GetTensorElementType)(const OrtTensorTypeAndShapeInfo* info,
                                                    int* out);  // slot 60
  OrtStatus*(DIRNET_ORT_CALL* GetDimensionsCount)(const OrtTensorTypeAndShapeInfo* info, size_t* out);
  OrtStatus*(DIRNET_ORT_CALL* GetDimensions)(const OrtTensorTypeAndShapeInfo* info, int64_t* dims,
                                             size_t count);
  void* unused_63[2];
  OrtStatus*(DIRNET_ORT_CALL* GetTensorTypeAndShape)(const OrtValue* value,
                                                     OrtTensorTypeAndShapeInfo** out);  // slot 65
  void* unused_66[3];
  OrtStatus*(DIRNET_ORT_CALL* CreateCpuMemoryInfo)(int allocator, int memory,
                                                   OrtMemoryInfo** out);  // slot 69
  void* unused_70[8];
  OrtStatus*(DIRNET_ORT_CALL* GetAllocatorWithDefaultOptions)(OrtAllocator** out);  // slot 78
  void* unused_79[6];
  OrtStatus*(DIRNET_ORT_CALL* KernelInfoGetAttribute_float)(const OrtKernelInfo* info, const char* name,
                                                            float* out);  // slot 85
  OrtStatus*(DIRNET_ORT_CALL* KernelInfoGetAttribute_int64)(const OrtKernelInfo* info, const char* name,
                                                            int64_t* out);
  void* unused_87[1];
  OrtStatus*(DIRNET_ORT_CALL* KernelContext_GetInputCount)(const OrtKernelContext* context,
                                                           size_t* out);  // slot 88
  void* unused_89[1];
  OrtStatus*(DIRNET_ORT_CALL* KernelContext_GetInput)(const OrtKernelContext* context, size_t index,
                                                      const OrtValue** out);  // slot 90
  OrtStatus*(DIRNET_ORT_CALL* KernelContext_GetOutput)(OrtKernelContext* context, size_t index,
                                                       const int64_t* dims, size_t rank, OrtValue** out);
  void* unused_92[1];
  void(DIRNET_ORT_CALL* ReleaseStatus)(OrtStatus* status);  // slot 93
  void(DIRNET_ORT_CALL* ReleaseMemoryInfo)(OrtMemoryInfo* memory);
  void(DIRNET_ORT_CALL* ReleaseSession)(OrtSession* session);
  void(DIRNET_ORT_CALL* ReleaseValue)(OrtValue* value);
  void* unused_97[2];
  void(DIRNET_ORT_CALL* ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo* info);  // slot 99
  void(DIRNET_ORT_CALL* ReleaseSessionOptions)(OrtSessionOptions* options);
  void* unused_101[9];
  OrtStatus*(DIRNET_ORT_CALL* SessionEndProfiling)(OrtSession* session, OrtAllocator* allocator,
                                                   char** path);  // slot 110
  void* unused_111[52];
  OrtStatus*(DIRNET_ORT_CALL* KernelInfoGetAttributeArray_int64)(const OrtKernelInfo* info, const char* name,
                                                                 int64_t* out, size_t* size);  // slot 163
  void* unused_164[73];
  OrtStatus*(DIRNET_ORT_CALL* HasSessionConfigEntry)(const OrtSessionOptions* options, const char* key,
                                                     int* out);  // slot 237
  OrtStatus*(DIRNET_ORT_CALL* GetSessionConfigEntry)(const OrtSessionOptions* options, const char* key,
                                                     char* value, size_t* size);
  void* unused_239[5];
  OrtStatus*(DIRNET_ORT_CALL* KernelInfo_GetNodeName)(const OrtKernelInfo* info, char* out,
                                                      size_t* size);  // slot 244
  void* unused_245[4];
  OrtStatus*(DIRNET_ORT_CALL* KernelInfoGetConstantInput_tensor)(const OrtKernelInfo* info, size_t index,
                                                                 int* is_constant,
                                                                 const OrtValue** out);  // slot 249
  void* unused_250[24];
  OrtStatus*(DIRNET_ORT_CALL* KernelContext_ParallelFor)(const OrtKernelContext* context,
                                                         void (*task)(void* data, size_t index), size_t total,
                                                         size_t batches, void* data);  // slot 274
};

struct ApiBase {
  const Api*(DIRNET_ORT_CALL* GetApi)(uint32_t version);
  const char*(DIRNET_ORT_CALL* GetVersionString)(void);
};

// One custom operator, as ONNX Runtime calls it. Null members are optional in version 18.
struct CustomOp {
  uint32_t version;
  void*(DIRNET_ORT_CALL* CreateKernel)(const CustomOp* op, const Api* api, const OrtKernelInfo* info);
  const char*(DIRNET_ORT_CALL* GetName)(const CustomOp* op);
  const char*(DIRNET_ORT_CALL* GetExecutionProviderType)(const CustomOp* op);
  int(DIRNET_ORT_CALL* GetInputType)(const CustomOp* op, size_t index);
  size_t(DIRNET_ORT_CALL* GetInputTypeCount)(const CustomOp* op);
  int(DIRNET_ORT_CALL* GetOutputType)(const CustomOp* op, size_t index);
  size_t(DIRNET_ORT_CALL* GetOutputTypeCount)(const CustomOp* op);
  void(DIRNET_ORT_CALL* KernelCompute)(void* kernel, OrtKernelContext* context);
  void(DIRNET_ORT_CALL* KernelDestroy)(void* kernel);
  int(DIRNET_ORT_CALL* GetInputCharacteristic)(const CustomOp* op, size_t index);
  int(DIRNET_ORT_CALL* GetOutputCharacteristic)(const CustomOp* op, size_t index);
  int(DIRNET_ORT_CALL* GetInputMemoryType)(const CustomOp* op, size_t index);
  int(DIRNET_ORT_CALL* GetVariadicInputMinArity)(const CustomOp* op);
  int(DIRNET_ORT_CALL* GetVariadicInputHomogeneity)(const CustomOp* op);
  int(DIRNET_ORT_CALL* GetVariadicOutputMinArity)(const CustomOp* op);
  int(DIRNET_ORT_CALL* GetVariadicOutputHomogeneity)(const CustomOp* op);
  OrtStatus*(DIRNET_ORT_CALL* CreateKernelV2)(const CustomOp* op, const Api* api, const OrtKernelInfo* info,
                                              void** kernel);
  OrtStatus*(DIRNET_ORT_CALL* KernelComputeV2)(void* kernel, OrtKernelContext* context);
  OrtStatus*(DIRNET_ORT_CALL* InferOutputShapeFn)(const CustomOp* op, OrtShapeInferContext* context);
  int(DIRNET_ORT_CALL* GetStartVersion)(const CustomOp* op);
  int(DIRNET_ORT_CALL* GetEndVersion)(const CustomOp* op);
  size_t(DIRNET_ORT_CALL* GetMayInplace)(int** input_index, int** output_index);
  void(DIRNET_ORT_CALL* ReleaseMayInplace)(int* input_index, int* output_index);
  size_t(DIRNET_ORT_CALL* GetAliasMap)(int** input_index, int** output_index);
  void(DIRNET_ORT_CALL* ReleaseAliasMap)(int* input_index, int* output_index);
};

}  // namespace dirnet::ort

#endif  // DIRNET_ONNXRUNTIME_OWN_ABI_H_
