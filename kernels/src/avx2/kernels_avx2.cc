// AVX2, which has no vector popcount: a lane is one byte of one output channel's weights, 32 channels to a
// register.
//
// For a nibble a of the pixel and a nibble w of the weights, popcount(a xor w) is a table of w alone once a
// is known: T_a[w] = popcount(w xor a). So xor and count are one shuffle, vpshufb(T_a, w), and one byte add,
// for 32 channels and 4 input channels: 64 multiply-adds an operation. (Counting the bits of w xor a itself
// takes eight operations for 256.) The tables are 16 bytes each, one for each value of a; a pixel's byte
// picks two of them, which lie side by side for each of its 256 values. Where they begin takes instructions
// to find, and all blocks of output channels need it: so the input is spread first, each byte to that offset.
// And the weights of a block, whose nibbles all tiles need apart, are spread where the nearest cache has
// room.
#include <immintrin.h>
#include <string.h>

#include "avx2/epilogue_avx2.h"
#include "driver/tile.h"
#include "driver/unroll.h"

namespace dirnet {

namespace {

constexpr int kSharedGroupChannels = 16;
// 4 x 2 counts + 4 weight nibbles + 2 tables + mask + temporary of 16 registers.
constexpr int kTilePixels = 4;
// Of a byte of input: where the tables of its nibbles begin.
constexpr int kSpreadBytes = 2;
// Of weights: a byte for each nibble.
constexpr int kSpreadCopies = 2;

// kTables[byte][0][w] = popcount(a xor w) for the byte's low nibble a, kTables[byte][1][w] for its high one.
struct ByteTables {
  alignas(64) uint8_t table[256][2][16];
};
constexpr ByteTables make_tables() {
  ByteTables t{};
  for (int byte = 0; byte < 256; ++byte) {
    for (int half = 0; half < 2; ++half) {
      for (int w = 0; w < 16; ++w) {
        const int x = (byte >> (4 * half) & 15) ^ w;
        t.table[byte][half][w] = static_cast<uint8_t>((x & 1) + (x >> 1 & 1) + (x >> 2 & 1) + (x >> 3 & 1));
      }
    }
  }
  return t;
}
constexpr ByteTables kTables = make_tables();
constexpr int kTablesShift = 5;
static_assert(sizeof(kTables.table[0]) == 1 << kTablesShift, "a byte shifted is where its tables begin");

__m256i load_table(const uint8_t* table) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

__m256i broadcast_word(const uint8_t* p) {
  int32_t word;
  memcpy(&word, p, sizeof(word));
  return _mm256_set1_epi32(word);
}

// The low and the high nibbles of one byte of 32 channels' weights.
struct Nibbles {
  __m256i low, high;
};

DIRNET_INLINE Nibbles nibbles_of(const uint8_t* weights) {
  const __m256i low = _mm256_set1_epi8(0x0F);
  const __m256i w = _mm256_load_si256(reinterpret_cast<const __m256i*>(weights));
  return {_mm256_and_si256(w, low), _mm256_and_si256(_mm256_srli_epi16(w, 4), low)};
}

// What nibbles_of finds, in neighbouring registers.
void spread_weights(const uint8_t* weights, int64_t bytes, uint8_t* spread) {
  for (int64_t i = 0; i < bytes; i += kLanes, spread += kSpreadCopies * kLanes) {
    const Nibbles w = nibbles_of(weights + i);
    _mm256_store_si256(reinterpret_cast<__m256i*>(spread), w.low);
    _mm256_store_si256(reinterpret_cast<__m256i*>(spread + kLanes), w.high);
  }
}

DIRNET_INLINE Nibbles spread_nibbles(const uint8_t* spread) {
  const __m256i* registers = reinterpret_cast<const __m256i*>(spread);
  return {_mm256_load_si256(registers), _mm256_load_si256(registers + 1)};
}

template <int P, int V, bool kSpread>
void conv_tile_px32v(const ConvTile& t) {
  constexpr int kWeightBytes = kSpread ? kSpreadCopies * kLanes : kLanes;
  WideCounts<P, V> wide;
  __m256i count[P][V];
  const uint8_t* input[P];
  DIRNET_UNROLL
  for (int p = 0; p < P; ++p) {
    input[p] = t.input[p];
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) count[p][v] = _mm256_setzero_si256();
  }
  int64_t room = kStepsPerByte;
  for (int64_t row = 0; row < t.rows; ++row) {
    for (int64_t tap = 0; tap < t.taps; ++tap) {
      int64_t at = row * t.input_row_bytes + tap * t.input_tap_bytes;
      int64_t left = t.units;
      const uint8_t* weights = t.weights + row * t.weight_row_bytes + tap * t.weight_tap_bytes;
      while (left > 0) {
        const int64_t steps = left < room ? left : room;
        room -= steps;
        left -= steps;
        for (const int64_t stop = at + steps * kSpreadBytes; at < stop; at += kSpreadBytes) {
          Nibbles w[V];
          DIRNET_UNROLL
          for (int v = 0; v < V; ++v) {
            const uint8_t* from = weights + v * kWeightBytes;
            w[v] = kSpread ? spread_nibbles(from) : nibbles_of(from);
          }
          weights += V * kWeightBytes;
          DIRNET_UNROLL
          for (int p = 0; p < P; ++p) {
            uint16_t offset;
            memcpy(&offset, input[p] + at, sizeof(offset));
            const __m256i table_low = load_table(&kTables.table[0][0][0] + offset);
            const __m256i table_high = load_table(&kTables.table[0][1][0] + offset);
            DIRNET_UNROLL
            for (int v = 0; v < V; ++v) {
              count[p][v] = _mm256_add_epi8(count[p][v], _mm256_shuffle_epi8(table_low, w[v].low));
              count[p][v] = _mm256_add_epi8(count[p][v], _mm256_shuffle_epi8(table_high, w[v].high));
            }
          }
        }
        if (room == 0) {
          wide.add(count);
          room = kStepsPerByte;
          DIRNET_UNROLL
          for (int p = 0; p < P; ++p) {
            DIRNET_UNROLL
            for (int v = 0; v < V; ++v) count[p][v] = _mm256_setzero_si256();
          }
        }
      }
    }
  }
  wide.add(count);
  finish_tile(t, wide);
}

// Blocks of several groups: every lane has a byte of input of its own, so that no table of the pixel serves
// them all; xor, mask and a popcount by table instead, ten operations for 32 lanes.
template <int P, int V>
void shared_tile_px32v(const ConvTile& t) {
  const SharedLanes& lanes = *t.shared;
  const __m256i low = _mm256_set1_epi8(0x0F);
  const __m256i bit_count = load_table(kTables.table[0][0]);
  WideCounts<P, V> wide;
  __m256i count[P][V];
  const uint8_t* input[P];
  DIRNET_UNROLL
  for (int p = 0; p < P; ++p) {
    input[p] = t.input[p];
    DIRNET_UNROLL
    for (int v = 0; v < V; ++v) count[p][v] = _mm256_setzero_si256();
  }
  int64_t room = kStepsPerByte;
  for (int64_t row = 0; row < t.rows; ++row) {
    for (int64_t tap = 0; tap < t.taps; ++tap) {
      const int64_t at = row * t.input_row_bytes + tap * t.input_tap_bytes;
      const uint8_t* weights = t.weights + row * t.weight_row_bytes + tap * t.weight_tap_bytes;
      for (int64_t step = 0; step < lanes.steps; ++step) {
        const uint8_t* positions = lanes.position + step * kBlockChannels;
        DIRNET_UNROLL
        for (int v = 0; v < V; ++v) {
          const __m256i mask = _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes.mask + v * kLanes));
          const __m256i w = _mm256_load_si256(reinterpret_cast<const __m256i*>(weights + v * kLanes));
          const __m256i position =
              _mm256_load_si256(reinterpret_cast<const __m256i*>(positions + v * kLanes));
          DIRNET_UNROLL
          for (int p = 0; p < P; ++p) {
            const __m256i a =
                _mm256_shuffle_epi8(broadcast_word(input[p] + at + lanes.input_offset[v]), position);
            const __m256i differ = _mm256_and_si256(_mm256_xor_si256(a, w), mask);
            const __m256i high = _mm256_and_si256(_mm256_srli_epi16(differ, 4), low);
            count[p][v] =
                _mm256_add_epi8(count[p][v], _mm256_shuffle_epi8(bit_count, _mm256_and_si256(differ, low)));
            count[p][v] = _mm256_add_epi8(count[p][v], _mm256_shuffle_epi8(bit_count, high));
          }
        }
        weights += kBlockChannels;
        if (--room == 0) {
          wide.add(count);
          room = kStepsPerByte;
          DIRNET_UNROLL
          for (int p = 0; p < P; ++p) {
            DIRNET_UNROLL
            for (int v = 0; v < V; ++v) count[p][v] = _mm256_setzero_si256();
          }
        }
      }
    }
  }
  wide.add(count);
  finish_tile(t, wide);
}

void spread_input(const uint8_t* input, int64_t units, uint8_t* spread) {
  int64_t i = 0;
  for (; i + 16 <= units; i += 16, spread += 16 * kSpreadBytes) {
    const __m256i bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(input + i)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(spread), _mm256_slli_epi16(bytes, kTablesShift));
  }
  for (; i < units; ++i, spread += kSpreadBytes) {
    const uint16_t offset = static_cast<uint16_t>(input[i] << kTablesShift);
    memcpy(spread, &offset, sizeof(offset));
  }
}

using TileFunction = void (*)(const ConvTile&);

template <int P>
struct Row {
  static constexpr TileFunction conv[2] = {conv_tile_px32v<P, 1, false>, conv_tile_px32v<P, 2, false>};
  static constexpr TileFunction spread[2] = {conv_tile_px32v<P, 1, true>, conv_tile_px32v<P, 2, true>};
  static constexpr TileFunction shared[2] = {shared_tile_px32v<P, 1>, shared_tile_px32v<P, 2>};
};

constexpr const TileFunction* kConvTiles[kTilePixels] = {Row<1>::conv, Row<2>::conv, Row<3>::conv,
                                                         Row<4>::conv};
constexpr const TileFunction* kSpreadTiles[kTilePixels] = {Row<1>::spread, Row<2>::spread, Row<3>::spread,
                                                           Row<4>::spread};
constexpr const TileFunction* kSharedTiles[kTilePixels] = {Row<1>::shared, Row<2>::shared, Row<3>::shared,
                                                           Row<4>::shared};

void run_one_of(const TileFunction* const* tiles, const ConvTile& t) {
  tiles[t.pixels - 1][(t.epilogue->channels - 1) / kLanes](t);
}
void conv_tile(const ConvTile& t) { run_one_of(kConvTiles, t); }
void spread_tile(const ConvTile& t) { run_one_of(kSpreadTiles, t); }
void shared_tile(const ConvTile& t) { run_one_of(kSharedTiles, t); }

void binarize(const float* x, int64_t pixels, int64_t channels, const float* threshold, uint64_t* bits) {
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t first = 0; first < channels; first += 64) {
      uint64_t word = 0;
      const int64_t past = channels - first < 64 ? channels - first : 64;
      int64_t i = 0;
      for (; i + 8 <= past; i += 8) {
        const __m256 set =
            _mm256_cmp_ps(_mm256_loadu_ps(x + first + i), _mm256_loadu_ps(threshold + first + i), _CMP_GE_OQ);
        word |= static_cast<uint64_t>(static_cast<unsigned>(_mm256_movemask_ps(set))) << i;
      }
      for (; i < past; ++i) word |= static_cast<uint64_t>(x[first + i] >= threshold[first + i]) << i;
      *bits++ = word;
    }
    x += channels;
  }
}

}  // namespace

const Kernels kAvx2Kernels = {1,         kSpreadBytes, kLanes,      kTilePixels,   kSharedGroupChannels,
                              conv_tile, spread_input, spread_tile, kSpreadCopies, spread_weights,
                              nullptr,   nullptr,      nullptr,     shared_tile,   binarize};

}  // namespace dirnet
