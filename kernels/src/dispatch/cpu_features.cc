#include "dispatch/cpu_features.h"

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#define DIRNET_X86_64 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace dirnet {

#if defined(DIRNET_X86_64)

namespace {

struct CpuidRegisters {
  uint32_t eax, ebx, ecx, edx;
};

CpuidRegisters cpuid(uint32_t leaf, uint32_t subleaf) {
#if defined(_MSC_VER)
  int r[4];
  __cpuidex(r, static_cast<int>(leaf), static_cast<int>(subleaf));
  return {static_cast<uint32_t>(r[0]), static_cast<uint32_t>(r[1]), static_cast<uint32_t>(r[2]),
          static_cast<uint32_t>(r[3])};
#else
  CpuidRegisters r{};
  __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
  return r;
#endif
}

// XCR0: the register sets that the operating system has enabled. The instruction exists only if OSXSAVE is
// set.
uint64_t enabled_register_sets() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
#endif
}

bool bit(uint32_t word, int position) { return ((word >> position) & 1U) != 0; }

}  // namespace

CpuFeatures detect_cpu_features() {
  CpuFeatures features;
  if (cpuid(0, 0).eax < 7) return features;
  const CpuidRegisters leaf1 = cpuid(1, 0);
  const bool osxsave = bit(leaf1.ecx, 27);
  if (!osxsave) return features;
  const uint64_t sets = enabled_register_sets();
  const bool ymm_saved = (sets & 0x06) == 0x06;  // SSE and AVX state
  const bool zmm_saved = (sets & 0xE6) == 0xE6;  // and opmask, upper halves, upper 16 registers
  const CpuidRegisters leaf7 = cpuid(7, 0);
  // Every CPU with AVX2 but a few old ones of VIA has fused multiply-add, too.
  features.avx2 = ymm_saved && bit(leaf7.ebx, 5) && bit(leaf1.ecx, 12);
  features.avx512 = zmm_saved && features.avx2 && bit(leaf7.ebx, 16) && bit(leaf7.ebx, 17) &&
                    bit(leaf7.ebx, 30) && bit(leaf7.ebx, 31) && bit(leaf7.ecx, 14) && bit(leaf7.ecx, 11);
  return features;
}

#elif defined(__aarch64__) || defined(_M_ARM64)

// Advanced SIMD is part of every AArch64 application processor.
CpuFeatures detect_cpu_features() {
  CpuFeatures features;
  features.neon = true;
  return features;
}

#else

CpuFeatures detect_cpu_features() { return {}; }

#endif

}  // namespace dirnet
