// The loops of gradient_loops.h, written once over the registers of an ISA: DIRNET_REGISTER_BYTES long. Sums
// of whole numbers are exact, and a lane is a channel, so that the length changes no result. Internal linkage
// on purpose: every ISA's own file includes it and gets its own copy.
#ifndef DIRNET_SRC_TRAINING_GRADIENT_LOOPS_OF_ISA_H_
#define DIRNET_SRC_TRAINING_GRADIENT_LOOPS_OF_ISA_H_

#include <stddef.h>

#include "driver/unroll.h"
#include "training/gradient_loops.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

// Before loops over the rows of a tile, of which there are up to twelve.
#if defined(__clang__)
#define DIRNET_UNROLL_ROWS _Pragma("clang loop unroll(full)")
#else
#define DIRNET_UNROLL_ROWS _Pragma("GCC unroll 12")
#endif

namespace dirnet {
namespace {

using Sums = int32_t __attribute__((vector_size(DIRNET_REGISTER_BYTES)));
using SumFloats = float __attribute__((vector_size(DIRNET_REGISTER_BYTES)));
using SumWords = uint32_t __attribute__((vector_size(DIRNET_REGISTER_BYTES)));
constexpr int kSumLanes = DIRNET_REGISTER_BYTES / sizeof(int32_t);
constexpr int kSumRegisters = kDotLanes / kSumLanes;
static_assert(kSumRegisters == 1 || kSumRegisters == 2 || kSumRegisters == 4, "see add_step");

// Pairs of one register, and their products with one pair in all lanes: sums += pair[0] * lane[0] + pair[1] *
// lane[1]. kDotRows of them, kSumRegisters wide, fit into the registers beside one step's operands.
#if DIRNET_REGISTER_BYTES == 64
constexpr int kDotRows = 12;
struct Pairs {
  DIRNET_INLINE explicit Pairs(const int16_t* from) : values(_mm512_loadu_si512(from)) {}
  DIRNET_INLINE void add_products(int32_t pair, Sums* sums) const {
    *sums = reinterpret_cast<Sums>(
        _mm512_dpwssd_epi32(reinterpret_cast<__m512i>(*sums), values, _mm512_set1_epi32(pair)));
  }
  __m512i values;
};
#elif DIRNET_REGISTER_BYTES == 32
constexpr int kDotRows = 6;
struct Pairs {
  DIRNET_INLINE explicit Pairs(const int16_t* from)
      : values(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))) {}
  DIRNET_INLINE void add_products(int32_t pair, Sums* sums) const {
    *sums += reinterpret_cast<Sums>(_mm256_madd_epi16(values, _mm256_set1_epi32(pair)));
  }
  __m256i values;
};
#elif defined(__ARM_NEON)
constexpr int kDotRows = 4;
struct Pairs {
  DIRNET_INLINE explicit Pairs(const int16_t* from) : values(vld2_s16(from)) {}
  DIRNET_INLINE void add_products(int32_t pair, Sums* sums) const {
    const int16x4_t both = vreinterpret_s16_s32(vdup_n_s32(pair));
    const int32x4_t first = vmlal_lane_s16(reinterpret_cast<int32x4_t>(*sums), values.val[0], both, 0);
    *sums = reinterpret_cast<Sums>(vmlal_lane_s16(first, values.val[1], both, 1));
  }
  int16x4x2_t values;
};
#else
constexpr int kDotRows = 2;
struct Pairs {
  DIRNET_INLINE explicit Pairs(const int16_t* from) {
    Sums both;
    __builtin_memcpy(&both, from, sizeof(both));
    first = (both << 16) >> 16;
    second = both >> 16;
  }
  DIRNET_INLINE void add_products(int32_t pair, Sums* sums) const {
    *sums += first * int32_t{static_cast<int16_t>(pair)} + second * (pair >> 16);
  }
  Sums first, second;
};
#endif
static_assert(kDotRows <= kMostDotRows, "see DotOperands");

// Adds the products of one pair of each row, `at` from its pointer, with all lanes.
template <int kRows>
DIRNET_INLINE void add_step(const int16_t* const (&rows)[kRows], int64_t at, const int16_t* lanes,
                            Sums (&sums)[kRows][kSumRegisters]) {
  constexpr int kRegister = 2 * kSumLanes;
  const auto add = [&](const auto&... steps) {
    DIRNET_UNROLL_ROWS
    for (int i = 0; i < kRows; ++i) {
      int32_t pair;
      __builtin_memcpy(&pair, rows[i] + at, sizeof(pair));
      int r = 0;
      (steps.add_products(pair, &sums[i][r++]), ...);
    }
  };
  if constexpr (kSumRegisters == 1) {
    add(Pairs(lanes));
  } else if constexpr (kSumRegisters == 2) {
    add(Pairs(lanes), Pairs(lanes + kRegister));
  } else {
    add(Pairs(lanes), Pairs(lanes + kRegister), Pairs(lanes + 2 * kRegister), Pairs(lanes + 3 * kRegister));
  }
}

template <int kRows>
DIRNET_INLINE void sum_products(const DotOperands& operands, Sums (&sums)[kRows][kSumRegisters]) {
  const int16_t* rows[kRows];
  DIRNET_UNROLL_ROWS
  for (int i = 0; i < kRows; ++i) {
    rows[i] = operands.rows[i];
    DIRNET_UNROLL
    for (int r = 0; r < kSumRegisters; ++r) sums[i][r] = Sums{};
  }
  const int64_t pairs = operands.pairs;
  int64_t at = 0;
  for (int64_t s = 0; s < operands.segment_count; ++s) {
    // The pointers move along: with both, their origins and where they are, registers would not suffice.
    const int64_t way = operands.segments[s].rows - at;
    at += way;
    DIRNET_UNROLL_ROWS
    for (int i = 0; i < kRows; ++i) rows[i] += way;
    const int16_t* lanes = operands.lanes + operands.segments[s].lanes;
    for (int64_t k = 0; k < pairs; ++k, lanes += kDotStep) add_step<kRows>(rows, 2 * k, lanes, sums);
  }
}

template <int kRows>
void dots_of(const DotOperands& operands, float scale, float* const* to, int channels) {
  Sums sums[kRows][kSumRegisters];
  sum_products<kRows>(operands, sums);
  DIRNET_UNROLL_ROWS
  for (int i = 0; i < kRows; ++i) {
    SumFloats products[kSumRegisters];
    DIRNET_UNROLL
    for (int r = 0; r < kSumRegisters; ++r)
      products[r] = __builtin_convertvector(sums[i][r], SumFloats) * scale;
    if (channels == kDotLanes) {
      __builtin_memcpy(to[i], products, sizeof(products));
    } else {
      __builtin_memcpy(to[i], products, static_cast<size_t>(channels) * sizeof(float));
    }
  }
}

template <int kRows>
void add_dots_of(const DotOperands& operands, const float* scale, float* to) {
  Sums sums[kRows][kSumRegisters];
  sum_products<kRows>(operands, sums);
  SumFloats scales[kSumRegisters];
  __builtin_memcpy(scales, scale, sizeof(scales));
  DIRNET_UNROLL_ROWS
  for (int i = 0; i < kRows; ++i) {
    DIRNET_UNROLL
    for (int r = 0; r < kSumRegisters; ++r) {
      float* at = to + i * kDotLanes + r * kSumLanes;
      SumFloats before;
      __builtin_memcpy(&before, at, sizeof(before));
      before += __builtin_convertvector(sums[i][r], SumFloats) * scales[r];
      __builtin_memcpy(at, &before, sizeof(before));
    }
  }
}

// Calls the function for kRows rows where `count` is kRows, else the one for fewer.
template <int kRows>
DIRNET_INLINE void choose_dots(const DotOperands& operands, int count, float scale, float* const* to,
                               int channels) {
  if constexpr (kRows > 1) {
    if (count < kRows) return choose_dots<kRows - 1>(operands, count, scale, to, channels);
  }
  dots_of<kRows>(operands, scale, to, channels);
}

template <int kRows>
DIRNET_INLINE void choose_add_dots(const DotOperands& operands, int count, const float* scale, float* sums) {
  if constexpr (kRows > 1) {
    if (count < kRows) return choose_add_dots<kRows - 1>(operands, count, scale, sums);
  }
  add_dots_of<kRows>(operands, scale, sums);
}

void dots(const DotOperands& operands, int row_count, float scale, float* const* to, int channels) {
  choose_dots<kDotRows>(operands, row_count, scale, to, channels);
}

void add_dots(const DotOperands& operands, int row_count, const float* scale, float* sums) {
  choose_add_dots<kDotRows>(operands, row_count, scale, sums);
}

// `count` numbers of 32 bits, and zeros behind them.
template <typename Lanes32 = SumFloats>
DIRNET_INLINE Lanes32 load_lanes(const float* from, int64_t count) {
  Lanes32 lanes = {};
  __builtin_memcpy(&lanes, from, static_cast<size_t>(count) * sizeof(float));
  return lanes;
}

// Calls job(first, count) for each register of the channels; where all its lanes are there, count is a
// constant.
template <typename Job>
DIRNET_INLINE void for_each_lanes(int64_t channels, const Job& job) {
  int64_t first = 0;
  for (; first + kSumLanes <= channels; first += kSumLanes) job(first, kSumLanes);
  if (first < channels) job(first, channels - first);
}

void magnitudes(const float* values, int64_t pixels, int64_t channels, int64_t stride, float* largest) {
  for_each_lanes(channels, [&](int64_t first, int64_t count) {
    // Magnitudes as whole numbers: those of floats are in the same order, and those of NaN are larger than
    // all.
    constexpr int kChains = 4;
    Sums chains[kChains] = {};
    const auto look_at = [&](int chain, int64_t p) {
      const Sums magnitude = load_lanes<Sums>(values + p * stride + first, count) & 0x7FFFFFFF;
      chains[chain] = magnitude > chains[chain] ? magnitude : chains[chain];
    };
    int64_t p = 0;
    for (; p + kChains <= pixels; p += kChains) {
      DIRNET_UNROLL
      for (int chain = 0; chain < kChains; ++chain) look_at(chain, p + chain);
    }
    for (; p < pixels; ++p) look_at(0, p);
    const Sums two = chains[0] > chains[1] ? chains[0] : chains[1];
    const Sums others = chains[2] > chains[3] ? chains[2] : chains[3];
    const Sums most = two > others ? two : others;
    __builtin_memcpy(largest + first, &most, static_cast<size_t>(count) * sizeof(float));
  });
}

// Rounds to nearest, ties to even, numbers within 16 bits: a float of 1.5 * 2^23 and more has no fraction,
// and the low bits of this one are 0, so that those of the sum are the number's.
DIRNET_INLINE SumWords rounded(SumFloats values) {
  const SumFloats sum = values + 12582912.0F;
  SumWords words;
  __builtin_memcpy(&words, &sum, sizeof(words));
  return words;
}

void round_pixels(const float* values, int64_t pixels, int64_t channels, int64_t stride, const float* factors,
                  int16_t* to, int64_t to_stride) {
  using Halves = int16_t __attribute__((vector_size(DIRNET_REGISTER_BYTES / 2)));
  for_each_lanes(channels, [&](int64_t first, int64_t count) {
    const SumFloats factor = load_lanes(factors + first, count);
    for (int64_t p = 0; p < pixels; ++p) {
      const SumWords words = rounded(load_lanes(values + p * stride + first, count) * factor);
      const Halves halves = __builtin_convertvector(words, Halves);
      __builtin_memcpy(to + p * to_stride + first, &halves, static_cast<size_t>(count) * sizeof(int16_t));
    }
  });
}

void round_pixel_pairs(const float* values, int64_t pixels, int channels, int64_t stride,
                       const float* factors, int16_t* to) {
  for (int first = 0; first < kDotLanes; first += kSumLanes) {
    const int left = channels - first;
    const int count = left < 0 ? 0 : left < kSumLanes ? left : kSumLanes;
    const SumFloats factor = load_lanes(factors + first, kSumLanes);
    const auto round_all = [&](auto load) {
      for (int64_t p = 0; p < pixels; p += 2) {
        SumWords pair = rounded(load(values + p * stride + first) * factor) & 0xFFFFU;
        if (p + 1 < pixels) pair |= rounded(load(values + (p + 1) * stride + first) * factor) << 16;
        __builtin_memcpy(to + p * kDotLanes + 2 * first, &pair, sizeof(pair));
      }
    };
    if (count == kSumLanes) {
      round_all([](const float* from) { return load_lanes(from, kSumLanes); });
    } else {
      round_all([count](const float* from) { return load_lanes(from, count); });
    }
  }
}

void signs(const SignRun& run, int16_t* to, int64_t plane) {
  constexpr int kChunk = DIRNET_REGISTER_BYTES / sizeof(int16_t);
  using Slices = uint16_t __attribute__((vector_size(DIRNET_REGISTER_BYTES)));
  for (int64_t p = 0; p < run.count; p += kChunk) {
    const int count = run.count - p < kChunk ? static_cast<int>(run.count - p) : kChunk;
    uint16_t slices[kChunk] = {};
    for (int i = 0; i < count; ++i)
      slices[i] = static_cast<uint16_t>(run.bits[(p + i) * run.step] >> run.shift);
    Slices all;
    __builtin_memcpy(&all, slices, sizeof(all));
    int16_t* at = to + p;
    for (int c = 0; c < run.channels; ++c, at += plane, all >>= 1) {
      const Slices values = ((all & 1U) << 1) - 1U;
      if (count == kChunk) {
        __builtin_memcpy(at, &values, sizeof(values));
      } else {
        __builtin_memcpy(at, &values, static_cast<size_t>(count) * sizeof(int16_t));
      }
    }
  }
}

constexpr GradientLoops kGradientLoops = {
    kDotRows, dots, add_dots, magnitudes, round_pixels, round_pixel_pairs, signs,
};

}  // namespace
}  // namespace dirnet

#endif  // DIRNET_SRC_TRAINING_GRADIENT_LOOPS_OF_ISA_H_
