#include <cstdlib>
#include <cstring>

#include "dirnet/dirnet.h"
#include "dispatch/cpu_features.h"
#include "dispatch/kernel_table.h"

namespace dirnet {

namespace {

constexpr const char* kNames[kIsaCount] = {"reference", "portable", "avx2", "avx512", "neon"};
constexpr Isa kFastestFirst[] = {Isa::kAvx512, Isa::kAvx2, Isa::kNeon, Isa::kPortable};

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect_cpu_features();
  return features;
}

bool in_range(Isa isa) { return static_cast<int>(isa) >= 0 && static_cast<int>(isa) < kIsaCount; }

std::string usable_names() {
  std::string names;
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (!isa_built(isa) || !isa_supported(isa)) continue;
    if (!names.empty()) names += ", ";
    names += kNames[i];
  }
  return names;
}

}  // namespace

const char* isa_name(Isa isa) { return in_range(isa) ? kNames[static_cast<int>(isa)] : nullptr; }

bool isa_built(Isa isa) { return isa == Isa::kReference || kernels_of(isa) != nullptr; }

bool isa_supported(Isa isa) {
  switch (isa) {
    case Isa::kReference:
    case Isa::kPortable:
      return true;
    case Isa::kAvx2:
      return cpu_features().avx2;
    case Isa::kAvx512:
      return cpu_features().avx512;
    case Isa::kNeon:
      return cpu_features().neon;
  }
  return false;
}

bool choose_isa(Isa* chosen, std::string* error) {
  const char* wanted = std::getenv("DIRNET_ISA");
  if (wanted == nullptr || wanted[0] == '\0') {
    for (const Isa isa : kFastestFirst) {
      if (isa_built(isa) && isa_supported(isa)) {
        *chosen = isa;
        return true;
      }
    }
  }
  for (int i = 0; wanted != nullptr && i < kIsaCount; ++i) {
    if (std::strcmp(wanted, kNames[i]) != 0) continue;
    const Isa isa = static_cast<Isa>(i);
    if (isa_built(isa) && isa_supported(isa)) {
      *chosen = isa;
      return true;
    }
    *error = std::string("DIRNET_ISA=") + wanted +
             (isa_built(isa) ? " is not supported by this CPU" : " was not built into this library") +
             "; use one of " + usable_names() + ", or unset DIRNET_ISA.";
    return false;
  }
  *error = std::string("DIRNET_ISA=") + (wanted != nullptr ? wanted : "") + " is not known; use one of " +
           usable_names() + ", or unset DIRNET_ISA.";
  return false;
}

}  // namespace dirnet
