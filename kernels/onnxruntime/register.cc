// The one entry that ONNX Runtime looks for in a library of custom operators.
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "operator.h"

#if defined(_WIN32)
#define DIRNET_ORT_EXPORT __declspec(dllexport)
#else
#define DIRNET_ORT_EXPORT __attribute__((visibility("default")))
#endif

namespace dirnet::ort {
namespace {

constexpr const char* kDomain = "ai.dirnet";
// A session's own choice of ISA, stronger than DIRNET_ISA.
constexpr const char* kIsaKey = "dirnet.isa";

std::vector<Definition> all_definitions() {
  std::vector<Definition> all;
  for (const auto& family : {binarize_definitions(), binary_conv2d_definitions(), binary_gemm_definitions(),
                             binary_max_pool2d_definitions(), stem_conv2d_definitions()}) {
    all.insert(all.end(), family.begin(), family.end());
  }
  return all;
}

Isa isa_by_name(const std::string& name) {
  std::string usable;
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (!isa_built(isa) || !isa_supported(isa)) continue;
    if (name == isa_name(isa)) return isa;
    usable += (usable.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  throw Failure("the session asks for ISA '" + name +
                "', which this library or CPU does not have; usable are " + usable);
}

Isa isa_of_session(const Api& api, const OrtSessionOptions* options) {
  int named = 0;
  check(api, api.HasSessionConfigEntry(options, kIsaKey, &named));
  if (named != 0) {
    size_t size = 0;
    check(api, api.GetSessionConfigEntry(options, kIsaKey, nullptr, &size));
    std::string name(size, '\0');
    check(api, api.GetSessionConfigEntry(options, kIsaKey, name.data(), &size));
    name.resize(size > 0 ? size - 1 : 0);
    return isa_by_name(name);
  }
  Isa isa = Isa::kReference;
  std::string error;
  if (!choose_isa(&isa, &error)) throw Failure(error);
  return isa;
}

// The domains made so far. ONNX Runtime keeps pointers to them and to their operators for as long as any
// session lives, and a process may hold two ONNX Runtimes, so they stay until the process ends.
class Domains {
 public:
  OrtCustomOpDomain* get(const Api& api, Isa isa) {
    const std::lock_guard<std::mutex> lock(mutex_);
    OrtCustomOpDomain*& domain = domains_[{&api, isa}];
    if (domain == nullptr) domain = create(api, isa);
    return domain;
  }

 private:
  OrtCustomOpDomain* create(const Api& api, Isa isa) {
    OrtCustomOpDomain* domain = nullptr;
    check(api, api.CreateCustomOpDomain(kDomain, &domain));
    for (const Definition& definition : definitions_) {
      check(api, api.CustomOpDomain_Add(domain, &operators_.emplace_back(definition, isa)));
    }
    return domain;
  }

  std::mutex mutex_;
  const std::vector<Definition> definitions_ = all_definitions();
  std::deque<Operator> operators_;  // a deque: its elements never move
  std::map<std::pair<const Api*, Isa>, OrtCustomOpDomain*> domains_;
};

Domains& domains() {
  static Domains* const all = new Domains;  // never destroyed: sessions may outlive static objects
  return *all;
}

}  // namespace
}  // namespace dirnet::ort

extern "C" DIRNET_ORT_EXPORT OrtStatus* DIRNET_ORT_CALL RegisterCustomOps(OrtSessionOptions* options,
                                                                          const dirnet::ort::ApiBase* base) {
  const dirnet::ort::Api* api = base->GetApi(dirnet::ort::kApiVersion);
  if (api == nullptr) {
    // A status can only be made by the table itself; the first slot has been the same since version 1.
    api = base->GetApi(1);
    return api == nullptr ? nullptr
                          : api->CreateStatus(dirnet::ort::kFail, "dirnet needs ONNX Runtime 1.18 or newer");
  }
  try {
    return api->AddCustomOpDomain(
        options, dirnet::ort::domains().get(*api, dirnet::ort::isa_of_session(*api, options)));
  } catch (const std::exception& failure) {
    return api->CreateStatus(dirnet::ort::kFail, failure.what());
  }
}
