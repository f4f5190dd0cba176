#include "dispatch/kernel_table.h"

namespace dirnet {

// The loops hide values from the optimizer, for which MSVC has no way.
#if defined(_MSC_VER)
#define DIRNET_PEAKS(loops) nullptr
#else
#define DIRNET_PEAKS(loops) &loops
#endif

IsaTable table_of(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return {&kPortableKernels, &kPortableStem, nullptr};
#if defined(DIRNET_BUILD_AVX2)
    case Isa::kAvx2:
      return {&kAvx2Kernels, &kAvx2Stem, DIRNET_PEAKS(kAvx2Peaks)};
#endif
#if defined(DIRNET_BUILD_AVX512)
    case Isa::kAvx512:
      return {&kAvx512Kernels, &kAvx512Stem, DIRNET_PEAKS(kAvx512Peaks)};
#endif
#if defined(DIRNET_BUILD_NEON)
    case Isa::kNeon:
      return {&kNeonKernels, &kNeonStem, DIRNET_PEAKS(kNeonPeaks)};
#endif
    default:
      return {nullptr, nullptr, nullptr};
  }
}

}  // namespace dirnet
