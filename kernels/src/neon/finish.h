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

// dot = K - 2 * count. Of an even K the doubling is left to the scale, which is exact.
DIRNET_INLINE bool twice(const ConvTile& t) { return !t.epilogue->can_double || t.dot_max % 2 != 0; }

// kRagged: the block's last register is partly empty, and so much of an output is not written. Not inline:
// see Counts::fold.
template <int V, bool kRagged>
DIRNET_NOINLINE void finish_pixels(const ConvTile& t, const Counts& counts, int byte_sums) {
  const BlockEpilogue& e = *t.epilogue;
  // In variables of its own: the compiler cannot know that what is written changes none of them.
  const int pixels = t.pixels;
  const int64_t pixel_floats = e.pixel_floats;
  const float* const residuals = e.residual;
  float* const outputs = e.y;
  const bool folded = counts.folded;
  const uint8_t* const bytes = counts.bytes;
  const bool has_clip = e.has_clip;
  const bool has_slope = e.has_slope;
  const bool slope_is_max = e.slope_is_max;
  const bool has_bits = e.bits != nullptr;
  const bool doubled = twice(t);
  const float* const scale = doubled ? e.scale : e.double_scale;
  const uint32x4_t most = vdupq_n_u32(static_cast<uint32_t>(doubled ? t.dot_max : t.dot_max / 2));
  for (int p = 0; p < pixels; ++p) {
    float32x4_t x[4 * V];
    if (folded) {
      load_dots<V>(counts, p, most, doubled, x);
    } else {
      uint16x8_t sum[2 * V];
      add_up<V>(bytes + p * (kByteSums * V * kLanes), byte_sums, sum);
      subtract<V>(most, sum, x);
    }
    with_floats(scale, x, [](float32x4_t a, float32x4_t b) { return vmulq_f32(a, b); });
    with_floats(e.bias, x, [](float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); });
    const int64_t offset = t.output[p] * pixel_floats;
    if (residuals != nullptr) {
      const float* residual = residuals + offset;
      float whole[V * kLanes];
      if (kRagged) {
        memset(whole, 0, sizeof(whole));
        memcpy(whole, residual, static_cast<size_t>(e.channels) * sizeof(float));
        residual = whole;
      }
      with_floats(residual, x, [](float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); });
    }
    if (has_clip) clip(e, x);
    if (slope_is_max) {
      with_floats(e.slope, x, [](float32x4_t a, float32x4_t b) { return vmaxq_f32(a, vmulq_f32(b, a)); });
    } else if (has_slope) {
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
      if (kRagged) memcpy(y, whole, static_cast<size_t>(e.channels) * sizeof(float));
    }
    if (has_bits) {
      const uint64_t word = reached<V>(e.threshold, x);
      store_bits(e, t.output[p], kRagged ? word & ~uint64_t{0} >> (64 - e.channels) : word);
    }
  }
}

}  // namespace

}  // namespace dirnet

#endif  // DIRNET_SRC_NEON_FINISH_H_
