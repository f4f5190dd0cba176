// Plain C++: a lane is a 32-bit word, the loop over the lanes is left to the compiler's vectorizer.
#include <cstring>

#include "driver/tile.h"

namespace dirnet {

namespace {

constexpr int kLanes = 16;  // channels worked on at once: their counts stay in registers or nearby
constexpr int kUnitBytes = 4;
constexpr int kSharedGroupChannels = 32;

// Bits per 2, then 4, then 8 bits; the multiplication sums the four bytes into the highest.
uint32_t popcount32(uint32_t x) {
  x = x - ((x >> 1) & 0x55555555U);
  x = (x & 0x33333333U) + ((x >> 2) & 0x33333333U);
  x = (x + (x >> 4)) & 0x0F0F0F0FU;
  return (x * 0x01010101U) >> 24;
}

// counts[lane] = popcount(a xor w) over all taps of one pixel, for kLanes lanes that start at `weights`.
void count_lanes(const ConvTile& t, int pixel, const uint8_t* weights, int64_t unit_stride,
                 uint32_t* counts) {
  for (int lane = 0; lane < kLanes; ++lane) counts[lane] = 0;
  for (int64_t row = 0; row < t.rows; ++row) {
    for (int64_t tap = 0; tap < t.taps; ++tap) {
      const uint8_t* a = t.input[pixel] + row * t.input_row_bytes + tap * t.input_tap_bytes;
      const uint8_t* w = weights + row * t.weight_row_bytes + tap * t.weight_tap_bytes;
      for (int64_t unit = 0; unit < t.units; ++unit) {
        uint32_t word;
        uint32_t lanes[kLanes];
        std::memcpy(&word, a + unit * kUnitBytes, sizeof(word));
        std::memcpy(lanes, w + unit * unit_stride, sizeof(lanes));
        for (int lane = 0; lane < kLanes; ++lane) counts[lane] += popcount32(lanes[lane] ^ word);
      }
    }
  }
}

// Returns the output bits of `count` channels that start at block channel `first`.
uint64_t finish_lanes(const BlockEpilogue& e, int64_t pixel, int32_t dot_max, int first, int count,
                      const uint32_t* counts) {
  uint64_t bits = 0;
  for (int i = 0; i < count; ++i) {
    const int o = first + i;
    // Twice the count may be more than 31 bits hold; the difference is not.
    const int32_t dot = static_cast<int32_t>(static_cast<uint32_t>(dot_max) - 2 * counts[i]);
    float v = static_cast<float>(dot) * e.scale[o];
    v = v + e.bias[o];
    if (e.residual != nullptr) v = v + e.residual[pixel * e.pixel_floats + o];
    v = v < e.clip_min ? e.clip_min : v;
    v = v > e.clip_max ? e.clip_max : v;
    if (e.has_slope) v = v < 0.0F ? e.slope[o] * v : v;
    if (e.y != nullptr) e.y[pixel * e.pixel_floats + o] = v;
    bits |= static_cast<uint64_t>(v >= e.threshold[o]) << o;
  }
  return bits;
}

// The same in a block of several groups, for the lanes of register `r`.
void count_shared_lanes(const ConvTile& t, int pixel, int r, uint32_t* counts) {
  uint32_t mask[kLanes];
  std::memcpy(mask, t.shared->mask + r * kLanes * kUnitBytes, sizeof(mask));
  for (int lane = 0; lane < kLanes; ++lane) counts[lane] = 0;
  const uint8_t* input = t.input[pixel] + t.shared->input_offset[r];
  const uint8_t* weights = t.weights + r * kLanes * kUnitBytes;
  for (int64_t row = 0; row < t.rows; ++row) {
    for (int64_t tap = 0; tap < t.taps; ++tap) {
      uint32_t word;
      uint32_t lanes[kLanes];
      std::memcpy(&word, input + row * t.input_row_bytes + tap * t.input_tap_bytes, sizeof(word));
      std::memcpy(lanes, weights + row * t.weight_row_bytes + tap * t.weight_tap_bytes, sizeof(lanes));
      for (int lane = 0; lane < kLanes; ++lane) counts[lane] += popcount32((lanes[lane] ^ word) & mask[lane]);
    }
  }
}

// count_from(pixel, first lane, counts) counts the bits of kLanes lanes.
template <typename Count>
void run_tile(const ConvTile& t, const Count& count_from) {
  const BlockEpilogue& e = *t.epilogue;
  for (int p = 0; p < t.pixels; ++p) {
    uint64_t bits = 0;
    for (int first = 0; first < e.channels; first += kLanes) {
      uint32_t counts[kLanes];
      count_from(p, first, counts);
      const int count = e.channels - first < kLanes ? e.channels - first : kLanes;
      bits |= finish_lanes(e, t.output[p], t.dot_max, first, count, counts);
    }
    if (e.bits != nullptr) store_bits(e, t.output[p], bits);
  }
}

void conv_tile(const ConvTile& t) {
  const int64_t unit_stride = (t.epilogue->channels + kLanes - 1) / kLanes * kLanes * kUnitBytes;
  run_tile(t, [&](int pixel, int first, uint32_t* counts) {
    count_lanes(t, pixel, t.weights + first * kUnitBytes, unit_stride, counts);
  });
}

void shared_tile(const ConvTile& t) {
  run_tile(t, [&](int pixel, int first, uint32_t* counts) {
    count_shared_lanes(t, pixel, first / kLanes, counts);
  });
}

void binarize(const float* x, int64_t pixels, int64_t channels, const float* threshold, uint64_t* bits) {
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t first = 0; first < channels; first += 64) {
      const int64_t count = channels - first < 64 ? channels - first : 64;
      uint64_t word = 0;
      for (int64_t i = 0; i < count; ++i)
        word |= static_cast<uint64_t>(x[first + i] >= threshold[first + i]) << i;
      *bits++ = word;
    }
    x += channels;
  }
}

}  // namespace

const Kernels kPortableKernels = {
    kUnitBytes, kUnitBytes, kLanes,  kMaxTilePixels, kSharedGroupChannels, conv_tile, nullptr, nullptr, 1,
    nullptr,    nullptr,    nullptr, nullptr,        shared_tile,          binarize};

}  // namespace dirnet
