#ifndef DIRNET_SRC_DRIVER_UNROLL_H_
#define DIRNET_SRC_DRIVER_UNROLL_H_

// Before a loop over a register tile: arrays of vectors become registers only once such loops are fully
// unrolled.
#if defined(__clang__)
#define DIRNET_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define DIRNET_UNROLL _Pragma("GCC unroll 8")
#else
#define DIRNET_UNROLL
#endif

// For a function that takes a register tile: called and not inlined, it would send the tile through memory.
#if defined(_MSC_VER)
#define DIRNET_INLINE __forceinline
#define DIRNET_NOINLINE __declspec(noinline)
#else
#define DIRNET_INLINE inline __attribute__((always_inline))
#define DIRNET_NOINLINE __attribute__((noinline))
#endif

#endif  // DIRNET_SRC_DRIVER_UNROLL_H_
