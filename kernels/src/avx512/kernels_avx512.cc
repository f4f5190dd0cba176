// AVX-512 with VPOPCNTDQ: a lane is a 32-bit word of one output channel's weights, 16 channels to a register.
//
// Per unit of 32 input channels and register: half -= popcnt(w xor broadcast(a)), three vector operations
// for 16 * 32 = 512 multiply-adds; begun at floor(K / 2), half ends as floor(dot / 2), dot = K - 2 *
// popcount. A tile of P pixels by V registers loads V weights and P words for 3 * P * V operations, so that
// the loads hide behind the arithmetic, and no sum is ever taken across lanes. Rows of three taps take eight
// operations for three units (see kTripleParts).
#include <immintrin.h>
#include <string.h>

#include "avx512/epilogue_avx512.h"
#include "driver/tile.h"
#include "driver/unroll.h"

#if defined(_MSC_VER)
#pragma fp_contract(off)
#endif

namespace dirnet {

namespace {

constexpr int kUnitBytes = 4;
constexpr int kSharedGroupChannels = 32;
constexpr int kTilePixels = 6;  // 6 x 4 counts + 4 weights + 2 temporaries of 32 registers

__m512i broadcast_unit(const uint8_t* p) {
  int32_t word;
  memcpy(&word, p, sizeof(word));
  return _mm512_set1_epi32(word);
}

template <int P, int V>
DIRNET_INLINE void begin_tile(const ConvTile& t, const uint8_t* (&input)[P], __m512i (&half)[P][V]) {
  prefetch_residual<P, V>(t);
  const __m512i start = _mm512_set1_epi32(t.dot_max / 2);
  DIRNET_UNROLL
  for (int p = 0; p < P; ++p) {
    input[p] = t.input[p];
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) half[p][v] = start;
  }
}

// half -= popcnt of one unit of each pixel, `at` bytes behind its beginning, against one of every channel.
template <int P, int V>
DIRNET_INLINE void count_unit(const uint8_t* const (&input)[P], int64_t at, const __m512i (&w)[V],
                              __m512i (&half)[P][V]) {
  DIRNET_UNROLL
  for (int p = 0; p < P; ++p) {
    const __m512i a = broadcast_unit(input[p] + at);
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) {
      half[p][v] = _mm512_sub_epi32(half[p][v], _mm512_popcnt_epi32(_mm512_xor_si512(a, w[v])));
    }
  }
}

// Counts tap by tap. `weights(row, tap)` is where a tap's first unit lies, the next one kStep bytes behind
// it, and `load` reads the V registers of a unit.
template <int P, int V, int kStep, typename Weights, typename Load>
DIRNET_INLINE void count_taps(const ConvTile& t, const Weights& weights, const Load& load) {
  __m512i half[P][V];
  const uint8_t* input[P];
  begin_tile<P, V>(t, input, half);
  for (int64_t row = 0; row < t.rows; ++row) {
    for (int64_t tap = 0; tap < t.taps; ++tap) {
      const int64_t first = row * t.input_row_bytes + tap * t.input_tap_bytes;
      const int64_t last = first + t.units * kUnitBytes;
      const uint8_t* unit = weights(row, tap);
      for (int64_t at = first; at < last; at += kUnitBytes) {
        __m512i w[V];
        load(unit, tap, w);
        unit += kStep;
        count_unit<P, V>(input, at, w, half);
      }
    }
  }
  finish_tile<P, V>(t, half);
}

template <int V>
DIRNET_INLINE void load_unit(const uint8_t* p, __m512i (&w)[V]) {
  DIRNET_UNROLL
  for (int v = 0; v < V; ++v) w[v] = _mm512_load_si512(p + v * 64);
}

template <int P, int V>
void conv_tile_px16v(const ConvTile& t) {
  count_taps<P, V, V * 64>(
      t,
      [&](int64_t row, int64_t tap) {
        return t.weights + row * t.weight_row_bytes + tap * t.weight_tap_bytes;
      },
      [](const uint8_t* unit, int64_t, __m512i(&w)[V]) { load_unit(unit, w); });
}

// Where the parts of an input unit lie, from the first byte of the pixel in the first plane.
using PartOffsets = int64_t[kTripleParts];

// half -= popcnt of the three taps' parts. In this order the two chains share the pipes best: a chain after
// the other takes a tenth longer on Zen 4. Left to itself GCC fetches the parts of all pixels first, or
// computes an address for each, and lacks registers for either.
DIRNET_INLINE void count_triple(const uint8_t* input, const PartOffsets& at, const __m512i (&w)[kTripleParts],
                                __m512i minus_two, __m512i& half) {
#if defined(__GNUC__)
  __m512i majority, parity;
  __asm__(
      "vpxord (%[input],%[at2])%{1to16%}, %[w2], %[majority]\n\t"
      "vpxord (%[input],%[at3])%{1to16%}, %[w3], %[parity]\n\t"
      "vpternlogd $0x60, (%[input],%[at1])%{1to16%}, %[w1], %[majority]\n\t"
      "vpopcntd %[parity], %[parity]\n\t"
      "vpternlogd $0x96, (%[input],%[at0])%{1to16%}, %[w0], %[majority]\n\t"
      "vpsubd %[parity], %[half], %[half]\n\t"
      "vpopcntd %[majority], %[majority]\n\t"
      "vpdpwssd %[majority], %[minus_two], %[half]"
      : [half] "+v"(half), [majority] "=&v"(majority), [parity] "=&v"(parity)
      : [input] "r"(input), [at0] "r"(at[0]), [at1] "r"(at[1]), [at2] "r"(at[2]), [at3] "r"(at[3]),
        [w0] "v"(w[0]), [w1] "v"(w[1]), [w2] "v"(w[2]), [w3] "v"(w[3]), [minus_two] "v"(minus_two)
      : "memory");
#else
  const __m512i x02 = _mm512_xor_si512(broadcast_unit(input + at[2]), w[2]);
  const __m512i both = _mm512_ternarylogic_epi32(x02, w[1], broadcast_unit(input + at[1]), 0x60);
  const __m512i majority = _mm512_ternarylogic_epi32(both, w[0], broadcast_unit(input + at[0]), 0x96);
  const __m512i parity = _mm512_xor_si512(broadcast_unit(input + at[3]), w[3]);
  half = _mm512_sub_epi32(half, _mm512_popcnt_epi32(parity));
  half = _mm512_dpwssd_epi32(half, _mm512_popcnt_epi32(majority), minus_two);
#endif
}

// Pixels that see whole rows of three taps.
template <int P, int V>
void triple_tile_px16v(const ConvTile& t) {
  const __m512i minus_two = _mm512_set1_epi32(0xFFFE);  // in the lower half of a lane, which holds the count
  __m512i half[P][V];
  const uint8_t* input[P];
  begin_tile<P, V>(t, input, half);
  for (int64_t row = 0; row < t.rows; ++row) {
    const int64_t first = row * t.input_row_bytes;
    const int64_t last = first + t.units * kUnitBytes;
    const uint8_t* weights = t.weights + row * t.weight_row_bytes;
    for (int64_t at = first; at < last; at += kUnitBytes) {
      const PartOffsets parts = {at, at + t.plane_bytes, at + 2 * t.plane_bytes, at + 3 * t.plane_bytes};
      DIRNET_UNROLL
      for (int v = 0; v < V; ++v) {
        __m512i w[kTripleParts];
        DIRNET_UNROLL
        for (int k = 0; k < kTripleParts; ++k) w[k] = _mm512_load_si512(weights + (k * V + v) * 64);
        DIRNET_UNROLL
        for (int p = 0; p < P; ++p) count_triple(input[p], parts, w, minus_two, half[p][v]);
      }
      weights += kTripleParts * V * 64;
    }
  }
  finish_tile<P, V>(t, half);
}

// Pixels at the border, which see some of the three taps: v_1 is a part of the weights, v_0 and v_2 are two
// parts' exclusive-or.
template <int P, int V>
void single_taps_tile_px16v(const ConvTile& t) {
  constexpr int kOtherPart[kTripleTaps] = {1, 0, 2};
  count_taps<P, V, kTripleParts * V * 64>(
      t, [&](int64_t row, int64_t) { return t.weights + row * t.weight_row_bytes; },
      [&](const uint8_t* unit, int64_t tap, __m512i(&w)[V]) {
        load_unit(unit, w);
        const int64_t other = kOtherPart[t.first_tap + tap] * V * 64;
        if (other == 0) return;
        DIRNET_UNROLL
        for (int v = 0; v < V; ++v) w[v] = _mm512_xor_si512(w[v], _mm512_load_si512(unit + other + v * 64));
      });
}

void triple_planes(const uint8_t* left, const uint8_t* middle, const uint8_t* right, int64_t units,
                   uint8_t* plane, int64_t plane_bytes) {
  for (int64_t i = 0; i < units; i += kLanes) {
    const __mmask16 some = first_lanes(static_cast<int>(units - i < kLanes ? units - i : kLanes));
    const __m512i l = _mm512_maskz_loadu_epi32(some, left + i * kUnitBytes);
    const __m512i m = _mm512_maskz_loadu_epi32(some, middle + i * kUnitBytes);
    const __m512i r = _mm512_maskz_loadu_epi32(some, right + i * kUnitBytes);
    uint8_t* out = plane + i * kUnitBytes;
    _mm512_mask_storeu_epi32(out, some, m);
    _mm512_mask_storeu_epi32(out + plane_bytes, some, _mm512_xor_si512(m, l));
    _mm512_mask_storeu_epi32(out + 2 * plane_bytes, some, _mm512_xor_si512(m, r));
    _mm512_mask_storeu_epi32(out + 3 * plane_bytes, some, _mm512_ternarylogic_epi32(l, m, r, 0x96));
  }
}

// Blocks of several groups: each register reads a word of its own, and each lane counts only its group's bits
// of it, for which the exclusive-or and the mask are one operation.
template <int P, int V>
void shared_tile_px16v(const ConvTile& t) {
  constexpr int kXorThenAnd = 0x28;
  const SharedLanes& lanes = *t.shared;
  __m512i half[P][V];
  __m512i mask[V];
  int64_t offset[V];
  const uint8_t* input[P];
  DIRNET_UNROLL
  for (int v = 0; v < V; ++v) {
    mask[v] = _mm512_load_si512(lanes.mask + v * 64);
    offset[v] = lanes.input_offset[v];
  }
  begin_tile<P, V>(t, input, half);
  for (int64_t row = 0; row < t.rows; ++row) {
    for (int64_t tap = 0; tap < t.taps; ++tap) {
      const int64_t at = row * t.input_row_bytes + tap * t.input_tap_bytes;
      const uint8_t* weights = t.weights + row * t.weight_row_bytes + tap * t.weight_tap_bytes;
      DIRNET_UNROLL
      for (int v = 0; v < V; ++v) {
        const __m512i w = _mm512_load_si512(weights + v * 64);
        const int64_t word = at + offset[v];
        DIRNET_UNROLL
        for (int p = 0; p < P; ++p) {
          const __m512i a = broadcast_unit(input[p] + word);
          const __m512i differ = _mm512_ternarylogic_epi32(a, w, mask[v], kXorThenAnd);
          half[p][v] = _mm512_sub_epi32(half[p][v], _mm512_popcnt_epi32(differ));
        }
      }
    }
  }
  finish_tile<P, V>(t, half);
}

using TileFunction = void (*)(const ConvTile&);

template <int P>
struct Row {
  static constexpr TileFunction conv[4] = {conv_tile_px16v<P, 1>, conv_tile_px16v<P, 2>,
                                           conv_tile_px16v<P, 3>, conv_tile_px16v<P, 4>};
  static constexpr TileFunction triple[4] = {triple_tile_px16v<P, 1>, triple_tile_px16v<P, 2>,
                                             triple_tile_px16v<P, 3>, triple_tile_px16v<P, 4>};
  static constexpr TileFunction single_taps[4] = {single_taps_tile_px16v<P, 1>, single_taps_tile_px16v<P, 2>,
                                                  single_taps_tile_px16v<P, 3>, single_taps_tile_px16v<P, 4>};
  static constexpr TileFunction shared[4] = {shared_tile_px16v<P, 1>, shared_tile_px16v<P, 2>,
                                             shared_tile_px16v<P, 3>, shared_tile_px16v<P, 4>};
};

constexpr const TileFunction* kConvTiles[kTilePixels] = {Row<1>::conv, Row<2>::conv, Row<3>::conv,
                                                         Row<4>::conv, Row<5>::conv, Row<6>::conv};
constexpr const TileFunction* kTripleTiles[kTilePixels] = {Row<1>::triple, Row<2>::triple, Row<3>::triple,
                                                           Row<4>::triple, Row<5>::triple, Row<6>::triple};
constexpr const TileFunction* kSingleTapsTiles[kTilePixels] = {Row<1>::single_taps, Row<2>::single_taps,
                                                               Row<3>::single_taps, Row<4>::single_taps,
                                                               Row<5>::single_taps, Row<6>::single_taps};
constexpr const TileFunction* kSharedTiles[kTilePixels] = {Row<1>::shared, Row<2>::shared, Row<3>::shared,
                                                           Row<4>::shared, Row<5>::shared, Row<6>::shared};

void conv_tile(const ConvTile& t) { kConvTiles[t.pixels - 1][(t.epilogue->channels - 1) / kLanes](t); }
void triple_tile(const ConvTile& t) { kTripleTiles[t.pixels - 1][(t.epilogue->channels - 1) / kLanes](t); }
void single_taps_tile(const ConvTile& t) {
  kSingleTapsTiles[t.pixels - 1][(t.epilogue->channels - 1) / kLanes](t);
}
void shared_tile(const ConvTile& t) { kSharedTiles[t.pixels - 1][(t.epilogue->channels - 1) / kLanes](t); }

void binarize(const float* x, int64_t pixels, int64_t channels, const float* threshold, uint64_t* bits) {
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t first = 0; first < channels; first += 64) {
      uint64_t word = 0;
      const int64_t past = channels - first < 64 ? channels - first : 64;
      for (int64_t i = 0; i < past; i += kLanes) {
        const __mmask16 lanes = first_lanes(static_cast<int>(past - i));
        const __m512 value = _mm512_maskz_loadu_ps(lanes, x + first + i);
        const __m512 limit = _mm512_maskz_loadu_ps(lanes, threshold + first + i);
        word |= static_cast<uint64_t>(_mm512_mask_cmp_ps_mask(lanes, value, limit, _CMP_GE_OQ)) << i;
      }
      *bits++ = word;
    }
    x += channels;
  }
}

}  // namespace

const Kernels kAvx512Kernels = {
    kUnitBytes,  kUnitBytes,       kLanes,        kTilePixels, kSharedGroupChannels,
    conv_tile,   nullptr,          nullptr,       1,           nullptr,
    triple_tile, single_taps_tile, triple_planes, shared_tile, binarize};

}  // namespace dirnet
