#ifndef DIRNET_SRC_DISPATCH_CPU_FEATURES_H_
#define DIRNET_SRC_DISPATCH_CPU_FEATURES_H_

namespace dirnet {

struct CpuFeatures {
  bool avx2 = false;
  bool avx512 = false;  // F, BW, DQ, VL, VPOPCNTDQ and VNNI
  bool neon = false;
};

// What the CPU has and the operating system saves on a context switch.
CpuFeatures detect_cpu_features();

}  // namespace dirnet

#endif  // DIRNET_SRC_DISPATCH_CPU_FEATURES_H_
