// The INT8 stem's micro-kernel, written once over the registers `I` of an ISA:
//   I::kLanes (32-bit sums to a register), I::kGroups (groups of kStemLanes channels at a time), I::kPixels,
//   I::kPack and I::Element (see StemKernels), I::Sum, load_sum; I::Weights, load_weights (kLanes * kPack of
//   them); I::Taps, broadcast (kPack elements); dot(sum, taps, weights), to_float.
// `V` are the float registers of stem_lanes.h, of as many lanes. Internal linkage on purpose, as there.
#ifndef DIRNET_SRC_DRIVER_STEM_INT8_LANES_H_
#define DIRNET_SRC_DRIVER_STEM_INT8_LANES_H_

#include <string.h>

#include "driver/stem_lanes.h"

namespace dirnet {
namespace {

template <typename V, typename I>
struct Int8Lanes {
  static constexpr int kWeightBytes = static_cast<int>(sizeof(typename I::Element));
  static constexpr int64_t kStepBytes = kStemLanes * I::kPack * kWeightBytes;
  static constexpr int64_t kRegisterBytes = I::kLanes * I::kPack * kWeightBytes;

  // P pixels by G groups of channels in registers from the first tap to the floats.
  template <int P, int G>
  static DIRNET_INLINE void pixels(const Int8Row& r, int64_t column, int64_t channel) {
    constexpr int kRegisters = G * kStemLanes / I::kLanes;
    const int64_t group_bytes = r.runs * r.steps * kStepBytes;
    const uint8_t* weights = r.weights + channel / kStemLanes * group_bytes;
    typename I::Sum sum[P][kRegisters];
    DIRNET_UNROLL
    for (int v = 0; v < kRegisters; ++v) {
      const typename I::Sum start = I::load_sum(r.start + channel + v * I::kLanes);
      DIRNET_UNROLL
      for (int p = 0; p < P; ++p) sum[p][v] = start;
    }
    const int64_t pixel_bytes = r.stride_w * kWeightBytes;
    for (int64_t run = 0; run < r.runs; ++run) {
      const uint8_t* taps = r.planes[run] + column * pixel_bytes;
      for (int64_t step = 0; step < r.steps; ++step) {
        typename I::Weights w[kRegisters];
        DIRNET_UNROLL
        for (int v = 0; v < kRegisters; ++v) {
          const int64_t at = v * I::kLanes / kStemLanes * group_bytes + v * kRegisterBytes % kStepBytes;
          w[v] = I::load_weights(weights + at);
        }
        weights += kStepBytes;
        DIRNET_UNROLL
        for (int p = 0; p < P; ++p) {
          const typename I::Taps a = I::broadcast(taps + p * pixel_bytes);
          DIRNET_UNROLL
          for (int v = 0; v < kRegisters; ++v) sum[p][v] = I::dot(sum[p][v], a, w[v]);
        }
        taps += I::kPack * kWeightBytes;
      }
    }
    DIRNET_UNROLL
    for (int v = 0; v < kRegisters; ++v) {
      const int64_t at = channel + v * I::kLanes;
      const typename V::Reg scale = V::load(r.scale + at);
      const typename StemLanes<V>::Finish finish = StemLanes<V>::finish_of(r.epilogue, at);
      DIRNET_UNROLL
      for (int p = 0; p < P; ++p) {
        const typename V::Reg value = StemLanes<V>::finished(V::mul(I::to_float(sum[p][v]), scale), finish);
        V::store(r.output + (column + p) * r.out_c + at, value);
      }
    }
  }

  template <int P, int G>
  static void last_pixels(const Int8Row& r, int64_t column, int64_t channel) {
    if constexpr (P > 0) {
      if (r.columns - column == P) {
        pixels<P, G>(r, column, channel);
      } else {
        last_pixels<P - 1, G>(r, column, channel);
      }
    }
  }

  template <int G>
  static void groups(const Int8Row& r, int64_t channel) {
    int64_t column = 0;
    for (; column + I::kPixels <= r.columns; column += I::kPixels) pixels<I::kPixels, G>(r, column, channel);
    last_pixels<I::kPixels - 1, G>(r, column, channel);
  }

  template <int G>
  static void last_groups(const Int8Row& r, int64_t channel) {
    if constexpr (G > 0) {
      if (r.out_c - channel == G * kStemLanes) {
        groups<G>(r, channel);
      } else {
        last_groups<G - 1>(r, channel);
      }
    }
  }

  static void row(const Int8Row& r) {
    constexpr int64_t kChannels = I::kGroups * kStemLanes;
    int64_t channel = 0;
    for (; channel + kChannels <= r.out_c; channel += kChannels) groups<I::kGroups>(r, channel);
    last_groups<I::kGroups - 1>(r, channel);
  }
};

// One byte in plain C++. Adding and subtracting 1.5 * 2^23 rounds a small number to an integer, ties to
// even; max and min as the registers' do it, a NaN giving the smallest.
[[maybe_unused]] int32_t quantized(float x, float scale, int32_t zero_point) {
  const float low = static_cast<float>(-zero_point);
  const float high = static_cast<float>(255 - zero_point);
  float q = x / scale;
  q = q > low ? q : low;
  q = q < high ? q : high;
  constexpr float kRounder = 12582912.0F;
  volatile float rounded = q + kRounder;
  return static_cast<int32_t>(rounded - kRounder) + zero_point;
}

// `count` elements of 16 bits, without the zero point.
[[maybe_unused]] void quantize_words(const float* x, int64_t count, float scale, int32_t zero_point,
                                     uint8_t* elements) {
  for (int64_t i = 0; i < count; ++i) {
    const int16_t word = static_cast<int16_t>(quantized(x[i], scale, zero_point) - zero_point);
    memcpy(elements + i * 2, &word, sizeof(word));
  }
}

}  // namespace
}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_STEM_INT8_LANES_H_
