// What AVX-512's micro-kernels do with a tile once its bits are counted.
#ifndef DIRNET_SRC_AVX512_EPILOGUE_AVX512_H_
#define DIRNET_SRC_AVX512_EPILOGUE_AVX512_H_

#include <immintrin.h>

#include "driver/tile.h"
#include "driver/unroll.h"

namespace dirnet {

// Internal linkage on purpose: no other file may get a copy that needs these instructions.
namespace {

constexpr int kLanes = 16;

// The first `channels` of 16 lanes.
__mmask16 first_lanes(int channels) {
  return static_cast<__mmask16>(channels >= kLanes ? 0xFFFF : (1U << channels) - 1);
}

// Fetches what finish_tile will read: a tile's arithmetic takes longer than its floats need to arrive.
template <int P, int V>
DIRNET_INLINE void prefetch_residual(const ConvTile& t) {
  const BlockEpilogue& e = *t.epilogue;
  if (!e.far_residual) return;
  DIRNET_UNROLL
  for (int p = 0; p < P; ++p) {
    const float* residual = e.residual + t.output[p] * e.pixel_floats;
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v)
      _mm_prefetch(reinterpret_cast<const char*>(residual + v * kLanes), _MM_HINT_T0);
  }
}

// The steps of dirnet::Epilogue on P pixels by V registers. Every step is asked for once and then done for
// the whole tile, which stays in registers. max(clip_min, v) takes its second operand when they are unordered
// or equal, as v < clip_min ? clip_min : v does; min likewise.
template <int P, int V>
DIRNET_INLINE void finish_tile(const ConvTile& t, __m512i (&half)[P][V]) {
  const BlockEpilogue& e = *t.epilogue;
  const __mmask16 last_lanes = first_lanes(e.channels - (V - 1) * kLanes);
  __m512 value[P][V];
  // dot and K are even or odd together. For even ones the doubling is left to the scale, which is exact.
  const bool doubled = e.can_double && t.dot_max % 2 == 0;
  const float* scales = doubled ? e.double_scale : e.scale;
  if (!doubled) {
    const __m512i odd = _mm512_set1_epi32(t.dot_max % 2);
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) {
      DIRNET_UNROLL
      for (int v = 0; v < V; ++v) half[p][v] = _mm512_add_epi32(_mm512_slli_epi32(half[p][v], 1), odd);
    }
  }
  DIRNET_UNROLL
  for (int v = 0; v < V; ++v) {
    const __m512 scale = _mm512_load_ps(scales + v * kLanes);
    const __m512 bias = _mm512_load_ps(e.bias + v * kLanes);
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) {
      value[p][v] = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(half[p][v]), scale), bias);
    }
  }
  if (e.residual != nullptr) {
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) {
      const float* residual = e.residual + t.output[p] * e.pixel_floats;
      DIRNET_UNROLL
      for (int v = 0; v < V; ++v) {
        const __m512 r = v < V - 1 ? _mm512_loadu_ps(residual + v * kLanes)
                                   : _mm512_maskz_loadu_ps(last_lanes, residual + v * kLanes);
        value[p][v] = _mm512_add_ps(value[p][v], r);
      }
    }
  }
  if (e.has_clip) {
    const __m512 clip_min = _mm512_set1_ps(e.clip_min);
    const __m512 clip_max = _mm512_set1_ps(e.clip_max);
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) {
      DIRNET_UNROLL
      for (int v = 0; v < V; ++v) value[p][v] = _mm512_min_ps(clip_max, _mm512_max_ps(clip_min, value[p][v]));
    }
  }
  if (e.has_slope) {
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) {
      const __m512 slope = _mm512_load_ps(e.slope + v * kLanes);
      DIRNET_UNROLL
      for (int p = 0; p < P; ++p) {
        const __mmask16 negative = _mm512_cmp_ps_mask(value[p][v], _mm512_setzero_ps(), _CMP_LT_OQ);
        value[p][v] = _mm512_mask_mul_ps(value[p][v], negative, slope, value[p][v]);
      }
    }
  }
  if (e.y != nullptr) {
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) {
      float* y = e.y + t.output[p] * e.pixel_floats;
      DIRNET_UNROLL
      for (int v = 0; v < V - 1; ++v) _mm512_storeu_ps(y + v * kLanes, value[p][v]);
      if (last_lanes == 0xFFFF) {
        _mm512_storeu_ps(y + (V - 1) * kLanes, value[p][V - 1]);
      } else {
        _mm512_mask_storeu_ps(y + (V - 1) * kLanes, last_lanes, value[p][V - 1]);
      }
    }
  }
  if (e.bits != nullptr) {
    const uint64_t channels = e.channels == kBlockChannels ? ~uint64_t{0} : (uint64_t{1} << e.channels) - 1;
    __m512 threshold[V];
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) threshold[v] = _mm512_load_ps(e.threshold + v * kLanes);
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) {
      uint64_t bits = 0;
      DIRNET_UNROLL
      for (int v = 0; v < V; ++v) {
        const __mmask16 set = _mm512_cmp_ps_mask(value[p][v], threshold[v], _CMP_GE_OQ);
        bits |= static_cast<uint64_t>(set) << (v * kLanes);
      }
      store_bits(e, t.output[p], bits & channels);
    }
  }
}

}  // namespace

}  // namespace dirnet

#endif  // DIRNET_SRC_AVX512_EPILOGUE_AVX512_H_
