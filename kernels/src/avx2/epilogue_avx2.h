// What AVX2's micro-kernels do with the bytes that count a tile's bits: wider sums, and the epilogue.
#ifndef DIRNET_SRC_AVX2_EPILOGUE_AVX2_H_
#define DIRNET_SRC_AVX2_EPILOGUE_AVX2_H_

#include <immintrin.h>

#include "driver/tile.h"
#include "driver/unroll.h"

#if defined(_MSC_VER)
#pragma fp_contract(off)
#endif

namespace dirnet {

// Internal linkage on purpose: no other file may get a copy that needs these instructions.
namespace {

constexpr int kLanes = 32;
// A step of eight input channels adds at most 8 to a byte: counts are widened after 31, 31 * 8 = 248 <= 255.
constexpr int kStepsPerByte = 31;
constexpr int kFlushesPerHalf = 65535 / (kStepsPerByte * 8);

// The widened counts of P pixels by V registers of lanes: 16 bits while they suffice, 32 once they do not.
template <int P, int V>
struct WideCounts {
  alignas(32) uint16_t half[P][V * kLanes];
  alignas(32) uint32_t word[P][V * kLanes];  // meaningful once spilled
  int flushes = 0;  // since `half` was last empty; while it is 0, `half` holds nothing
  bool spilled = false;

  DIRNET_INLINE void add(const __m256i (&bytes)[P][V]) {
    if (flushes == kFlushesPerHalf) spill();
    const bool first = flushes++ == 0;
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) {
      DIRNET_UNROLL
      for (int v = 0; v < V; ++v) {
        __m256i* sums = reinterpret_cast<__m256i*>(&half[p][v * kLanes]);
        __m256i low = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes[p][v]));
        __m256i high = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(bytes[p][v], 1));
        if (!first) {
          low = _mm256_add_epi16(_mm256_load_si256(sums), low);
          high = _mm256_add_epi16(_mm256_load_si256(sums + 1), high);
        }
        _mm256_store_si256(sums, low);
        _mm256_store_si256(sums + 1, high);
      }
    }
  }

  // Eight channels of one pixel.
  __m256i sum(int p, int channel) const {
    const __m256i low =
        _mm256_cvtepu16_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(&half[p][channel])));
    if (!spilled) return low;
    return _mm256_add_epi32(low, _mm256_load_si256(reinterpret_cast<const __m256i*>(&word[p][channel])));
  }

 private:
  void spill() {
    for (int p = 0; p < P; ++p) {
      for (int i = 0; i < V * kLanes; ++i) word[p][i] = half[p][i] + (spilled ? word[p][i] : 0);
    }
    flushes = 0;
    spilled = true;
  }
};

// All ones in the first `left` of eight lanes.
__m256i first_lanes(int left) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// The steps of dirnet::Epilogue on the first kEights times eight channels of one pixel. Every step is asked
// for once and then done for the whole pixel, which stays in registers. max(clip_min, v) takes its second
// operand when they are unordered or equal, as v < clip_min ? clip_min : v does; min likewise.
template <int kEights, int P, int V>
DIRNET_INLINE void finish_pixel(const ConvTile& t, const WideCounts<P, V>& counts, int p) {
  const BlockEpilogue& e = *t.epilogue;
  const int64_t offset = t.output[p] * e.pixel_floats;
  const bool whole = e.channels == kEights * 8;
  const __m256i dot_max = _mm256_set1_epi32(t.dot_max);
  __m256 value[kEights];
  DIRNET_UNROLL
  for (int i = 0; i < kEights; ++i) {
    const __m256i dot = _mm256_sub_epi32(dot_max, _mm256_slli_epi32(counts.sum(p, i * 8), 1));
    const __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), _mm256_load_ps(e.scale + i * 8));
    value[i] = _mm256_add_ps(product, _mm256_load_ps(e.bias + i * 8));
  }
  if (e.residual != nullptr && whole) {
    DIRNET_UNROLL
    for (int i = 0; i < kEights; ++i)
      value[i] = _mm256_add_ps(value[i], _mm256_loadu_ps(e.residual + offset + i * 8));
  } else if (e.residual != nullptr) {
    DIRNET_UNROLL
    for (int i = 0; i < kEights; ++i) {
      const __m256i lanes = first_lanes(e.channels - i * 8);
      value[i] = _mm256_add_ps(value[i], _mm256_maskload_ps(e.residual + offset + i * 8, lanes));
    }
  }
  if (e.has_clip) {
    const __m256 clip_min = _mm256_set1_ps(e.clip_min);
    const __m256 clip_max = _mm256_set1_ps(e.clip_max);
    DIRNET_UNROLL
    for (int i = 0; i < kEights; ++i) value[i] = _mm256_min_ps(clip_max, _mm256_max_ps(clip_min, value[i]));
  }
  if (e.has_slope) {
    DIRNET_UNROLL
    for (int i = 0; i < kEights; ++i) {
      const __m256 negative = _mm256_cmp_ps(value[i], _mm256_setzero_ps(), _CMP_LT_OQ);
      value[i] =
          _mm256_blendv_ps(value[i], _mm256_mul_ps(_mm256_load_ps(e.slope + i * 8), value[i]), negative);
    }
  }
  if (e.y != nullptr && whole) {
    DIRNET_UNROLL
    for (int i = 0; i < kEights; ++i) _mm256_storeu_ps(e.y + offset + i * 8, value[i]);
  } else if (e.y != nullptr) {
    // A mask is for the last eight alone: some CPUs take many times as long for a masked store as for a plain
    // one.
    DIRNET_UNROLL
    for (int i = 0; i < kEights; ++i) {
      const int left = e.channels - i * 8;
      if (left >= 8) {
        _mm256_storeu_ps(e.y + offset + i * 8, value[i]);
      } else if (left > 0) {
        _mm256_maskstore_ps(e.y + offset + i * 8, first_lanes(left), value[i]);
      }
    }
  }
  if (e.bits != nullptr) {
    uint64_t bits = 0;
    // 32 channels at a time: packing leaves fours of the low halves in front of those of the high ones.
    const __m256i fours = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    DIRNET_UNROLL
    for (int i = 0; i < kEights; i += 4) {
      constexpr int kPacked = kEights < 4 ? kEights : 4;
      __m256i set[4] = {};
      DIRNET_UNROLL
      for (int j = 0; j < kPacked; ++j) {
        set[j] = _mm256_castps_si256(
            _mm256_cmp_ps(value[i + j], _mm256_load_ps(e.threshold + (i + j) * 8), _CMP_GE_OQ));
      }
      const __m256i packed =
          _mm256_packs_epi16(_mm256_packs_epi32(set[0], set[1]), _mm256_packs_epi32(set[2], set[3]));
      const int mask = _mm256_movemask_epi8(_mm256_permutevar8x32_epi32(packed, fours));
      bits |= static_cast<uint64_t>(static_cast<unsigned>(mask)) << (i * 8);
    }
    const uint64_t channels = e.channels == kBlockChannels ? ~uint64_t{0} : (uint64_t{1} << e.channels) - 1;
    store_bits(e, t.output[p], bits & channels);
  }
}

template <int P, int V>
DIRNET_INLINE void finish_tile(const ConvTile& t, const WideCounts<P, V>& counts) {
  constexpr int kEights = V * kLanes / 8;
  if (t.epilogue->channels <= (kEights / 2) * 8) {
    for (int p = 0; p < P; ++p) finish_pixel<kEights / 2>(t, counts, p);
  } else {
    for (int p = 0; p < P; ++p) finish_pixel<kEights>(t, counts, p);
  }
}

}  // namespace

}  // namespace dirnet

#endif  // DIRNET_SRC_AVX2_EPILOGUE_AVX2_H_
