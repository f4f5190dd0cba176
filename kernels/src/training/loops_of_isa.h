// The loops of loops.h, written once over the registers of an ISA: DIRNET_REGISTER_BYTES long. A lane is a
// channel, so that the length changes no result.
// Internal linkage on purpose: every ISA's own file includes it and gets its own copy.
#ifndef DIRNET_SRC_TRAINING_LOOPS_OF_ISA_H_
#define DIRNET_SRC_TRAINING_LOOPS_OF_ISA_H_

#include <stddef.h>

#include "driver/unroll.h"
#include "training/gradient_loops_of_isa.h"
#include "training/loops.h"

namespace dirnet {
namespace {

using Lanes = float __attribute__((vector_size(DIRNET_REGISTER_BYTES)));
using Words = uint32_t __attribute__((vector_size(DIRNET_REGISTER_BYTES)));
using HalfWords = uint16_t __attribute__((vector_size(DIRNET_REGISTER_BYTES / 2)));

constexpr int kRegisterLanes = DIRNET_REGISTER_BYTES / sizeof(float);
static_assert(kTailLanes % kRegisterLanes == 0, "whole registers");

// Pixels whose sums are independent of each other: an addition's result is waited for some cycles.
constexpr int kChains = 4;

// The two types of values; a load of fewer lanes than all gives zeros for the others. `count` is a constant
// where all are there.
struct Float32 {
  using Value = float;

  static DIRNET_INLINE Lanes load(const float* from, int count) {
    Lanes lanes = {};
    __builtin_memcpy(&lanes, from, static_cast<size_t>(count) * sizeof(float));
    return lanes;
  }

  static DIRNET_INLINE void store(float* to, Lanes lanes, int count) {
    __builtin_memcpy(to, &lanes, static_cast<size_t>(count) * sizeof(float));
  }
};

struct Bfloat16 {
  using Value = uint16_t;

  static DIRNET_INLINE Lanes load(const uint16_t* from, int count) {
    HalfWords halves = {};
    __builtin_memcpy(&halves, from, static_cast<size_t>(count) * sizeof(uint16_t));
    const Words words = __builtin_convertvector(halves, Words) << 16;
    Lanes lanes;
    __builtin_memcpy(&lanes, &words, sizeof(lanes));
    return lanes;
  }

  // Rounds to nearest, ties to even: adds just less than half of the last place that stays, and one more
  // where that place is odd. NaN becomes the quiet one.
  static DIRNET_INLINE void store(uint16_t* to, Lanes lanes, int count) {
    Words words;
    __builtin_memcpy(&words, &lanes, sizeof(words));
    const Words rounded = (words + 0x7FFFU + ((words >> 16) & 1U)) >> 16;
    const Words quiet = Words{} + 0x7FC0U;
    const HalfWords halves = __builtin_convertvector(lanes == lanes ? rounded : quiet, HalfWords);
    __builtin_memcpy(to, &halves, static_cast<size_t>(count) * sizeof(uint16_t));
  }
};

DIRNET_INLINE Lanes whole(const float* from) { return Float32::load(from, kRegisterLanes); }
DIRNET_INLINE void put_whole(float* to, Lanes lanes) { Float32::store(to, lanes, kRegisterLanes); }

// Each is a TailActivation: y = of(v); gradient(v, d) = d * dy/dv.
struct NoActivation {
  static constexpr bool kHasSlope = false;
  DIRNET_INLINE NoActivation(const TailLanes&, int) {}
  DIRNET_INLINE Lanes of(Lanes v) const { return v; }
  DIRNET_INLINE Lanes gradient(Lanes, Lanes d) const { return d; }
};

struct Prelu {
  static constexpr bool kHasSlope = true;
  DIRNET_INLINE Prelu(const TailLanes& t, int first) : slope(whole(t.slope + first)) {}
  DIRNET_INLINE Lanes of(Lanes v) const { return v > 0.0F ? v : slope * v; }
  DIRNET_INLINE Lanes gradient(Lanes v, Lanes d) const { return v > 0.0F ? d : slope * d; }
  Lanes slope;
};

struct Clip {
  static constexpr bool kHasSlope = false;
  DIRNET_INLINE Clip(const TailLanes& t, int) : low(Lanes{} + t.clip_min), high(Lanes{} + t.clip_max) {}
  DIRNET_INLINE Lanes of(Lanes v) const {
    const Lanes above = v < low ? low : v;
    return above > high ? high : above;
  }
  // A NaN lies beyond neither bound and passes the gradient on; PyTorch's loops do either.
  DIRNET_INLINE Lanes gradient(Lanes v, Lanes d) const {
    const Lanes zero = {};
    return v <= low ? zero : (v >= high ? zero : d);
  }
  Lanes low;
  Lanes high;
};

// Each works on one register of t's channels: `count` of them from `first` on, where its pointers begin.
template <typename T>
struct Tail {
  using Value = typename T::Value;

  static DIRNET_INLINE void moments(const TailLanes& t, int first, int count, const Value* x, int64_t pixels,
                                    TailMoments* result) {
    const auto sum = [&](auto of_value) {
      Lanes chains[kChains] = {};
      int64_t p = 0;
      for (; p + kChains <= pixels; p += kChains) {
        DIRNET_UNROLL
        for (int i = 0; i < kChains; ++i) chains[i] += of_value(T::load(x + (p + i) * t.stride, count));
      }
      for (; p < pixels; ++p) chains[0] += of_value(T::load(x + p * t.stride, count));
      return (chains[0] + chains[1]) + (chains[2] + chains[3]);
    };
    // Two passes over values that are near: no difference of large sums.
    const Lanes mean = sum([](Lanes v) { return v; }) / static_cast<float>(pixels);
    const Lanes squares = sum([mean](Lanes v) { return (v - mean) * (v - mean); });
    put_whole(result->mean + first, mean);
    put_whole(result->squares + first, squares);
  }

  // The value before the activation.
  static DIRNET_INLINE Lanes before(Lanes centred, const Value* residual, int count, Lanes scale,
                                    Lanes offset, Lanes shift) {
    Lanes v = centred * scale + offset;
    if (residual != nullptr) v = v + T::load(residual, count);
    return v + shift;
  }

  template <typename Activation>
  static DIRNET_INLINE void forward(const TailLanes& t, int first, int count, const Value* x,
                                    const Value* residual, int64_t pixels, Value* y) {
    const Activation activation(t, first);
    const Lanes mean = whole(t.mean + first), scale = whole(t.scale + first);
    const Lanes offset = whole(t.offset + first), shift = whole(t.shift + first);
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t at = p * t.stride;
      const Lanes centred = T::load(x + at, count) - mean;
      const Value* added = residual == nullptr ? nullptr : residual + at;
      T::store(y + at, activation.of(before(centred, added, count, scale, offset, shift)), count);
    }
  }

  template <typename Activation>
  static DIRNET_INLINE void backward_sums(const TailLanes& t, int first, int count, const Value* x,
                                          const Value* residual, const Value* y_gradient, int64_t pixels,
                                          Value* g, TailSums* sums) {
    const Activation activation(t, first);
    const Lanes mean = whole(t.mean + first), scale = whole(t.scale + first);
    const Lanes offset = whole(t.offset + first), shift = whole(t.shift + first);
    Lanes gradient_sum = {}, centred_sum = {}, slope_sum = {};
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t at = p * t.stride;
      const Lanes centred = T::load(x + at, count) - mean;
      const Lanes d = T::load(y_gradient + at, count);
      const Value* added = residual == nullptr ? nullptr : residual + at;
      const Lanes v = before(centred, added, count, scale, offset, shift);
      const Lanes gradient = activation.gradient(v, d);
      T::store(g + at, gradient, count);
      gradient_sum += gradient;
      centred_sum += gradient * centred;
      if (Activation::kHasSlope) slope_sum += v > 0.0F ? Lanes{} : d * v;
    }
    put_whole(sums->gradient + first, gradient_sum);
    put_whole(sums->centred + first, centred_sum);
    put_whole(sums->slope + first, slope_sum);
  }

  static DIRNET_INLINE void backward(const TailLanes& t, int first, int count, const Value* x, const Value* g,
                                     int64_t pixels, Value* x_gradient) {
    const Lanes mean = whole(t.mean + first), scale = whole(t.scale + first);
    const Lanes gradient_mean = whole(t.gradient_mean + first);
    const Lanes gradient_slope = whole(t.gradient_slope + first);
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t at = p * t.stride;
      const Lanes centred = T::load(x + at, count) - mean;
      const Lanes gradient = T::load(g + at, count) - gradient_mean - centred * gradient_slope;
      T::store(x_gradient + at, gradient * scale, count);
    }
  }
};

// The number of channels of a full register: a type of its own, so that loops over full ones are compiled
// apart.
struct Full {
  constexpr operator int() const { return kRegisterLanes; }
};

// Calls job(type, first, count) for each register of t's channels: the values' type, the channel that it
// begins with and the number of its channels.
template <typename Job>
DIRNET_INLINE void for_each_register(const TailLanes& t, const Job& job) {
  for (int first = 0; first < t.channels; first += kRegisterLanes) {
    const int left = t.channels - first;
    const bool full = left >= kRegisterLanes;
    if (t.bfloat16) {
      full ? job(Bfloat16{}, first, Full{}) : job(Bfloat16{}, first, left);
    } else {
      full ? job(Float32{}, first, Full{}) : job(Float32{}, first, left);
    }
  }
}

// The values of a tensor from channel `first` on.
template <typename T>
DIRNET_INLINE const typename T::Value* in(T, const void* tensor, int first) {
  return tensor == nullptr ? nullptr : static_cast<const typename T::Value*>(tensor) + first;
}

template <typename T>
DIRNET_INLINE typename T::Value* out(T, void* tensor, int first) {
  return static_cast<typename T::Value*>(tensor) + first;
}

void tail_moments(const TailLanes& t, const void* x, int64_t pixels, TailMoments* moments) {
  for_each_register(t, [&](auto type, int first, auto count) {
    Tail<decltype(type)>::moments(t, first, count, in(type, x, first), pixels, moments);
  });
}

template <typename Activation>
void tail_forward(const TailLanes& t, const void* x, const void* residual, int64_t pixels, void* y) {
  for_each_register(t, [&](auto type, int first, auto count) {
    Tail<decltype(type)>::template forward<Activation>(
        t, first, count, in(type, x, first), in(type, residual, first), pixels, out(type, y, first));
  });
}

template <typename Activation>
void tail_backward_sums(const TailLanes& t, const void* x, const void* residual, const void* y_gradient,
                        int64_t pixels, void* g, TailSums* sums) {
  for_each_register(t, [&](auto type, int first, auto count) {
    Tail<decltype(type)>::template backward_sums<Activation>(
        t, first, count, in(type, x, first), in(type, residual, first), in(type, y_gradient, first), pixels,
        out(type, g, first), sums);
  });
}

void tail_backward(const TailLanes& t, const void* x, const void* g, int64_t pixels, void* x_gradient) {
  for_each_register(t, [&](auto type, int first, auto count) {
    Tail<decltype(type)>::backward(t, first, count, in(type, x, first), in(type, g, first), pixels,
                                   out(type, x_gradient, first));
  });
}

void widen(const uint16_t* values, int64_t count, float* wide) {
  int64_t i = 0;
  for (; i + kRegisterLanes <= count; i += kRegisterLanes)
    put_whole(wide + i, Bfloat16::load(values + i, kRegisterLanes));
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    Float32::store(wide + i, Bfloat16::load(values + i, rest), rest);
  }
}

void narrow(const float* values, int64_t count, uint16_t* narrowed) {
  int64_t i = 0;
  for (; i + kRegisterLanes <= count; i += kRegisterLanes)
    Bfloat16::store(narrowed + i, whole(values + i), kRegisterLanes);
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    Bfloat16::store(narrowed + i, Float32::load(values + i, rest), rest);
  }
}

constexpr TrainingLoops kLoops = {
    widen,
    narrow,
    tail_moments,
    {tail_forward<NoActivation>, tail_forward<Prelu>, tail_forward<Clip>},
    {tail_backward_sums<NoActivation>, tail_backward_sums<Prelu>, tail_backward_sums<Clip>},
    tail_backward,
    kGradientLoops,
};

}  // namespace
}  // namespace dirnet

#endif  // DIRNET_SRC_TRAINING_LOOPS_OF_ISA_H_
