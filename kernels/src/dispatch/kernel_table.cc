#include "dispatch/kernel_table.h"

namespace dirnet {

// The peaks' loops hide values from the optimizer, and training's are written in vectors of GCC and Clang.
#if defined(_MSC_VER)
#define DIRNET_NOT_MSVC(loops) nullptr
#else
#define DIRNET_NOT_MSVC(loops) &loops
#endif

IsaTable table_of(Isa isa) {
  switch (isa) {
    case Isa::kPortable:
      return {&kPortableKernels, &kPortableStem, nullptr, DIRNET_NOT_MSVC(kPortableTraining)};
#if defined(DIRNET_BUILD_AVX2)
    case Isa::kAvx2:
      return {&kAvx2Kernels, &kAvx2Stem, DIRNET_NOT_MSVC(kAvx2Peaks), DIRNET_NOT_MSVC(kAvx2Training)};
#endif
#if defined(DIRNET_BUILD_AVX512)
    case Isa::kAvx512:
      return {&kAvx512Kernels, &kAvx512Stem, DIRNET_NOT_MSVC(kAvx512Peaks), DIRNET_NOT_MSVC(kAvx512Training)};
#endif
#if defined(DIRNET_BUILD_NEON)
    case Isa::kNeon:
      return {&kNeonKernels, &kNeonStem, DIRNET_NOT_MSVC(kNeonPeaks), DIRNET_NOT_MSVC(kNeonTraining)};
#endif
    default:
      return {nullptr, nullptr, nullptr, nullptr};
  }
}

const TrainingLoops* training_loops_of(Isa isa) {
  return table_of(isa == Isa::kReference ? Isa::kPortable : isa).training;
}

}  // namespace dirnet
