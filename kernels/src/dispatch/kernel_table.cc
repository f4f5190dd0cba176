#include "dispatch/kernel_table.h"

namespace dirnet {

const Kernels* kernels_of(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return &kPortableKernels;
#if defined(DIRNET_BUILD_AVX2)
    case Isa::kAvx2:
      return &kAvx2Kernels;
#endif
#if defined(DIRNET_BUILD_AVX512)
    case Isa::kAvx512:
      return &kAvx512Kernels;
#endif
#if defined(DIRNET_BUILD_NEON)
    case Isa::kNeon:
      return &kNeonKernels;
#endif
    default:
      return nullptr;
  }
}

const StemKernels* stem_kernels_of(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return &kPortableStem;
#if defined(DIRNET_BUILD_AVX2)
    case Isa::kAvx2:
      return &kAvx2Stem;
#endif
#if defined(DIRNET_BUILD_AVX512)
    case Isa::kAvx512:
      return &kAvx512Stem;
#endif
#if defined(DIRNET_BUILD_NEON)
    case Isa::kNeon:
      return &kNeonStem;
#endif
    default:
      return nullptr;
  }
}

}  // namespace dirnet
