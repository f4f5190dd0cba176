// The steps of dirnet::Epilogue: a pixel's whole block in registers, each step asked for once.
#ifndef DIRNET_SRC_NEON_FINISH_H_
#define DIRNET_SRC_NEON_FINISH_H_

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "driver/tile.h"
#include "driver/unroll.h"
#include "neon/counts.h"
#include "neon/lane_bits.h"
#include "neon/loads.h"

namespace dirnet {

namespace {

// Calls `step` with every register of `x` and the four floats from `p` on that belong to it.
template <int Q, typename Step>
DIRNET_INLINE void with_floats(const float* p, float32x4_t (&x)[Q], const Step& step) {
  DIRNET_UNROLL
  for (int q = 0; q < Q; q += 4) {
    const float32x4x4_t four = load_four(p);
    DIRNET_UNROLL
    for (int i = 0; i < 4; ++i) x[q + i] = step(x[q + i], four.val[i]);
  }
}

// Comparisons, not vmax and vmin: those would order the two zeros.
template <int Q>
DIRNET_INLINE void clip(const BlockEpilogue& e, float32x4_t (&x)[Q]) {
  const float32x4_t least = vdupq_n_f32(e.clip_min);
  const float32x4_t most = vdupq_n_f32(e.clip_max);
  DIRNET_UNROLL
  for (int q = 0; q < Q; q += 4) {
    DIRNET_UNROLL
    for (int i = q; i < q + 4; ++i) {
      x[i] = vbslq_f32(vcltq_f32(x[i], least), least, x[i]);
      x[i] = vbslq_f32(vcgtq_f32(x[i], most), most, x[i]);
    }
  }
}

// The bits of those that reach the 16 floats each at `p`.
template <int V>
DIRNET_INLINE uint64_t reached(const float* p, float32x4_t (&x)[4 * V]) {
  uint32x4_t four[V];
  DIRNET_UNROLL
  for (int v = 0; v < V; ++v) {
    const float32x4x4_t threshold = load_four(p);
    four[v] =
        join_nibbles(vcgeq_f32(x[4 * v], threshold.val[0]), vcgeq_f32(x[4 * v + 1], threshold.val[1]),
                     vcgeq_f32(x[4 * v + 2], threshold.val[2]), vcgeq_f32(x[4 * v + 3], threshold.val[3]));
  }
  return word_of(four);
}

// kRagged: the block's last register is partly empty, and so much of an output is not written. Not inline:
// see Counts::fold.
template <int V, bool kRagged>
DIRNET_NOINLINE void finish_pixels(const ConvTile& t, const Counts& of_tile) {
  // In variables of its own: the compiler cannot know that what is written changes none of them.
  const Counts counts = of_tile;
  const BlockEpilogue& e = *t.epilogue;
  const int pixels = t.pixels;
  const int64_t pixel_floats = e.pixel_floats;
  const float* const residuals = e.residual;
  float* const outputs = e.y;
  const bool has_clip = e.has_clip;
  const bool has_slope = e.has_slope;
  const bool has_bits = e.bits != nullptr;
  const size_t bytes = static_cast<size_t>(e.channels) * sizeof(float);
  const uint64_t mask = ~uint64_t{0} >> (64 - e.channels);
  // dot = K - 2 * count. Of an even K the doubling is left to the scale, which is exact.
  const bool twice = !e.can_double || t.dot_max % 2 != 0;
  const float* const scale = twice ? e.scale : e.double_scale;
  const uint32x4_t most = vdupq_n_u32(static_cast<uint32_t>(twice ? t.dot_max : t.dot_max / 2));
  for (int p = 0; p < pixels; ++p) {
    float32x4_t x[4 * V];
    load_dots<V>(counts, p, most, twice, x);
    with_floats(scale, x, [](float32x4_t a, float32x4_t b) { return vmulq_f32(a, b); });
    with_floats(e.bias, x, [](float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); });
    const int64_t offset = t.output[p] * pixel_floats;
    if (residuals != nullptr) {
      const float* residual = residuals + offset;
      float whole[V * kLanes];
      if (kRagged) {
        memset(whole, 0, sizeof(whole));
        memcpy(whole, residual, bytes);
        residual = whole;
      }
      with_floats(residual, x, [](float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); });
    }
    if (has_clip) clip(e, x);
    if (has_slope) {
      with_floats(e.slope, x,
                  [](float32x4_t a, float32x4_t b) { return vbslq_f32(vcltzq_f32(a), vmulq_f32(b, a), a); });
    }
    if (outputs != nullptr) {
      float* y = outputs + offset;
      float whole[V * kLanes];
      float* const to = kRagged ? whole : y;
      DIRNET_UNROLL
      for (int q = 0; q < 4 * V; q += 4) {
        DIRNET_UNROLL
        for (int i = q; i < q + 4; ++i) vst1q_f32(to + i * 4, x[i]);
      }
      if (kRagged) memcpy(y, whole, bytes);
    }
    if (has_bits) store_bits(e, t.output[p], reached<V>(e.threshold, x) & mask);
  }
}

}  // namespace

}  // namespace dirnet

#endif  // DIRNET_SRC_NEON_FINISH_H_
