// The inner loop: bytes of input against bytes of weights.
#ifndef DIRNET_SRC_NEON_BYTE_STEPS_H_
#define DIRNET_SRC_NEON_BYTE_STEPS_H_

#include <arm_neon.h>
#include <stdint.h>

#include "driver/unroll.h"
#include "neon/loads.h"

namespace dirnet {

namespace {

// One byte of every pixel against one of every channel. All the exclusive-ors of a pixel, then its popcounts,
// then its additions: processors that keep the order find something to do while a result is under way. The
// next pixel's byte is fetched meanwhile.
template <bool kFirst, int P, int V>
DIRNET_INLINE void byte_step(const uint8_t*& weights, const uint8_t* (&input)[P], uint8x16_t (&count)[P][V]) {
  uint8x16_t w[V];
  load_next(weights, w);
  uint8x16_t a = broadcast_next(input[0]);
  DIRNET_UNROLL
  for (int p = 0; p < P; ++p) {
    uint8x16_t x[V];
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) x[v] = veorq_u8(a, w[v]);
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) x[v] = vcntq_u8(x[v]);
    count[p][0] = kFirst ? x[0] : vaddq_u8(count[p][0], x[0]);
    if (p + 1 < P) a = broadcast_next(input[p + 1 < P ? p + 1 : p]);
    DIRNET_UNROLL
    for (int v = 1; v < V; ++v) count[p][v] = kFirst ? x[v] : vaddq_u8(count[p][v], x[v]);
  }
}

#if defined(__GNUC__)

// clang-format off
#define DIRNET_EOR(to, from, w) "eor %[" to "].16b, %[" from "].16b, %[w" w "].16b\n\t"
#define DIRNET_CNT(x) "cnt %[" x "].16b, %[" x "].16b\n\t"
#define DIRNET_ADD(c, x) "add %[c" c "].16b, %[c" c "].16b, %[" x "].16b\n\t"
#define DIRNET_FETCH "ld2r {%[a].16b, %[b].16b}, [%[next]], #2\n\t"
#define DIRNET_BEGIN                                                  \
  DIRNET_EOR("x", "a", "0")                                           \
  DIRNET_EOR("y", "a", "1")                                           \
  DIRNET_CNT("x") DIRNET_CNT("y") DIRNET_ADD("0", "x")                \
  DIRNET_EOR("x", "a", "3")                                           \
  DIRNET_EOR("a", "a", "2") DIRNET_ADD("1", "y")                      \
  DIRNET_EOR("y", "b", "4")                                           \
  DIRNET_CNT("a") DIRNET_CNT("y") DIRNET_CNT("x") DIRNET_ADD("2", "a") \
  DIRNET_EOR("a", "b", "5") DIRNET_ADD("0", "y") DIRNET_ADD("3", "x") \
  DIRNET_EOR("y", "b", "7")                                           \
  DIRNET_EOR("x", "b", "6")                                           \
  DIRNET_CNT("a") DIRNET_CNT("y") DIRNET_CNT("x") DIRNET_ADD("1", "a")
#define DIRNET_END DIRNET_ADD("3", "y") DIRNET_ADD("2", "x")
// clang-format on
#define DIRNET_OPERANDS(count)                                                                             \
  [c0] "+w"((count)[0]), [c1] "+w"((count)[1]), [c2] "+w"((count)[2]), [c3] "+w"((count)[3]), [a] "+w"(a), \
      [b] "+w"(b), [x] "=&w"(x), [y] "=&w"(y)
#define DIRNET_WEIGHTS                                                                                \
  [w0] "w"(w.val[0]), [w1] "w"(w.val[1]), [w2] "w"(w.val[2]), [w3] "w"(w.val[3]), [w4] "w"(u.val[0]), \
      [w5] "w"(u.val[1]), [w6] "w"(u.val[2]), [w7] "w"(u.val[3])

// Two bytes of every pixel against two of each of 64 channels. A pixel's are in `a` and `b`; the next one's
// are fetched as soon as nothing reads them. The order keeps processors busy that keep it, and all 32
// registers are in use: left to themselves, compilers move things about until they have to spill counts.
template <int P>
DIRNET_INLINE void two_byte_steps(const uint8_t*& weights, const uint8_t* (&input)[P],
                                  uint8x16_t (&count)[P][4]) {
  register uint8x16_t a __asm__("v28");
  register uint8x16_t b __asm__("v29");
  register uint8x16_t x __asm__("v30");
  register uint8x16_t y __asm__("v31");
  const uint8x16x4_t w = load_four(weights);
  __asm__("ld2r {%0.16b, %1.16b}, [%2], #2" : "=w"(a), "=w"(b), "+r"(input[0])::"memory");
  const uint8x16x4_t u = load_four(weights);
  DIRNET_UNROLL
  for (int p = 0; p + 1 < P; ++p) {
    __asm__(DIRNET_BEGIN DIRNET_FETCH DIRNET_END
            : DIRNET_OPERANDS(count[p]), [next] "+r"(input[p + 1])
            : DIRNET_WEIGHTS
            : "memory");
  }
  __asm__(DIRNET_BEGIN DIRNET_END : DIRNET_OPERANDS(count[P - 1]) : DIRNET_WEIGHTS);
}

#undef DIRNET_EOR
#undef DIRNET_CNT
#undef DIRNET_ADD
#undef DIRNET_FETCH
#undef DIRNET_BEGIN
#undef DIRNET_END
#undef DIRNET_OPERANDS
#undef DIRNET_WEIGHTS

#endif  // defined(__GNUC__)

template <int P, int V>
DIRNET_INLINE void byte_steps(int64_t steps, const uint8_t*& weights, const uint8_t* (&input)[P],
                              uint8x16_t (&count)[P][V]) {
  const uint8_t* const stop = weights + steps * V * kLanes;
#if defined(__GNUC__)
  if constexpr (V == 4) {
    if ((steps & 1) != 0) byte_step<false>(weights, input, count);
    if ((steps & 2) != 0) two_byte_steps(weights, input, count);
    while (weights != stop) {
      two_byte_steps(weights, input, count);
      two_byte_steps(weights, input, count);
    }
    return;
  }
#endif
  while (weights != stop) byte_step<false>(weights, input, count);
}

}  // namespace

}  // namespace dirnet

#endif  // DIRNET_SRC_NEON_BYTE_STEPS_H_
