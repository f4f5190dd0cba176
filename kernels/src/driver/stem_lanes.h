// The stem's micro-kernels, written once over a register type `V` of an ISA:
//   V::Reg, V::kLanes (divides 16), V::kTiles and V::kRegisters (Winograd tiles, and registers of channels,
//   at a time), V::kByRows (whether all six positions of a row are, too, or one), load, store, set1, add,
//   sub, mul, fma(a, b, c) = a * b + c, max(a, b) and min(a, b), which give b where the operands are
//   unordered, prelu(v, slope) = v < 0 ? slope * v : v.
// Internal linkage on purpose: every ISA's own file includes it and gets its own copy.
#ifndef DIRNET_SRC_DRIVER_STEM_LANES_H_
#define DIRNET_SRC_DRIVER_STEM_LANES_H_

#include <math.h>

#include "driver/stem_tile.h"
#include "driver/unroll.h"

namespace dirnet {
namespace {

template <typename V>
struct StemLanes {
  using Reg = typename V::Reg;
  static constexpr int kLanes = V::kLanes;

  // The rows of B' at the points 0, 1, -1, 2, -2 and infinity:
  //   4 x0 - 5 x2 + x4;  (x4 - 4 x2) +- (x3 - 4 x1);  (x4 - x2) +- 2 (x3 - x1);  4 x1 - 5 x3 + x5
  static DIRNET_INLINE void input_transform(const Reg (&x)[6], Reg (&y)[6]) {
    const Reg four = V::set1(4.0F);
    const Reg minus_four = V::set1(-4.0F);
    const Reg minus_five = V::set1(-5.0F);
    const Reg even = V::fma(minus_four, x[2], x[4]);
    const Reg odd = V::fma(minus_four, x[1], x[3]);
    const Reg even_two = V::sub(x[4], x[2]);
    const Reg odd_two = V::add(V::sub(x[3], x[1]), V::sub(x[3], x[1]));
    y[0] = V::fma(four, x[0], V::fma(minus_five, x[2], x[4]));
    y[1] = V::add(even, odd);
    y[2] = V::sub(even, odd);
    y[3] = V::add(even_two, odd_two);
    y[4] = V::sub(even_two, odd_two);
    y[5] = V::fma(four, x[1], V::fma(minus_five, x[3], x[5]));
  }

  // The rows of A': m0 + (m1 + m2) + (m3 + m4);  (m1 - m2) + 2 (m3 - m4);  (m1 + m2) + 4 (m3 + m4) + m5
  static DIRNET_INLINE void output_transform(const Reg (&m)[6], Reg (&y)[3]) {
    const Reg two = V::set1(2.0F);
    const Reg four = V::set1(4.0F);
    const Reg sum_one = V::add(m[1], m[2]);
    const Reg sum_two = V::add(m[3], m[4]);
    y[0] = V::add(V::add(m[0], sum_one), sum_two);
    y[1] = V::fma(two, V::sub(m[3], m[4]), V::sub(m[1], m[2]));
    y[2] = V::add(V::fma(four, sum_two, sum_one), m[5]);
  }

  static void transform_six(const float* const* in, float* const* out, int64_t count) {
    for (int64_t i = 0; i < count; i += kLanes) {
      Reg x[6];
      Reg y[6];
      DIRNET_UNROLL
      for (int k = 0; k < 6; ++k) x[k] = V::load(in[k] + i);
      input_transform(x, y);
      DIRNET_UNROLL
      for (int k = 0; k < 6; ++k) V::store(out[k] + i, y[k]);
    }
  }

  struct Finish {
    Reg bias, low, high, slope;
    bool has_slope;
  };

  static DIRNET_INLINE Finish finish_of(const StemEpilogue& e, int64_t channel) {
    const bool has_slope = e.slope != nullptr;
    return {V::load(e.bias + channel), V::set1(e.clip_min), V::set1(e.clip_max),
            has_slope ? V::load(e.slope + channel) : V::set1(1.0F), has_slope};
  }

  // What is NaN stays NaN.
  static DIRNET_INLINE Reg finished(Reg sum, const Finish& f) {
    const Reg v = V::min(f.high, V::max(f.low, V::add(sum, f.bias)));
    return f.has_slope ? V::prelu(v, f.slope) : v;
  }

  // Tiles whose transformed inputs share cache lines.
  static constexpr int kRunTiles = 16;
  // Registers of channels that go through a run of tiles together, and the numbers in them.
  static constexpr int kRegisters = V::kRegisters;
  static constexpr int kTogether = kRegisters * kLanes;
  // What the horizontal half of A' leaves of one row of positions.
  using HalfTiles = float[kRunTiles][3][kTogether];

  // The products of kPositions neighbouring positions of T tiles, summed over the channels: as many sums in
  // registers as there are of these and kRegisters.
  template <int kPositions, int T>
  static DIRNET_INLINE void multiply(const WinogradStrip& s, const float* input, const float* weights,
                                     Reg (&sum)[kPositions][T][kRegisters]) {
    DIRNET_UNROLL
    for (int p = 0; p < kPositions; ++p) {
      DIRNET_UNROLL
      for (int t = 0; t < T; ++t) {
        DIRNET_UNROLL
        for (int r = 0; r < kRegisters; ++r) sum[p][t][r] = V::set1(0.0F);
      }
    }
    const int64_t input_step = s.channels * s.input_pitch;
    const int64_t weight_step = s.channels * kStemLanes;
    for (int64_t c = 0; c < s.channels; ++c) {
      DIRNET_UNROLL
      for (int p = 0; p < kPositions; ++p) {
        const float* x = input + p * input_step + c * s.input_pitch;
        Reg w[kRegisters];
        DIRNET_UNROLL
        for (int r = 0; r < kRegisters; ++r)
          w[r] = V::load(weights + p * weight_step + c * kStemLanes + r * kLanes);
        DIRNET_UNROLL
        for (int t = 0; t < T; ++t) {
          const Reg value = V::set1(x[t]);
          DIRNET_UNROLL
          for (int r = 0; r < kRegisters; ++r) sum[p][t][r] = V::fma(value, w[r], sum[p][t][r]);
        }
      }
    }
  }

  static DIRNET_INLINE void put_half(Reg (&m)[6], float (&half)[3][kTogether], int r) {
    Reg y[3];
    output_transform(m, y);
    DIRNET_UNROLL
    for (int k = 0; k < 3; ++k) V::store(half[k] + r * kLanes, y[k]);
  }

  // One row of positions, six of them, of T tiles: all in registers until the half of A'.
  template <int T>
  static void row_of_tiles(const WinogradStrip& s, const float* input, const float* weights,
                           float (*half_tiles)[3][kTogether]) {
    Reg sum[6][T][kRegisters];
    multiply<6, T>(s, input, weights, sum);
    DIRNET_UNROLL
    for (int t = 0; t < T; ++t) {
      DIRNET_UNROLL
      for (int r = 0; r < kRegisters; ++r) {
        Reg m[6];
        DIRNET_UNROLL
        for (int p = 0; p < 6; ++p) m[p] = sum[p][t][r];
        put_half(m, half_tiles[t], r);
      }
    }
  }

  // One position of T tiles.
  template <int T>
  static void position_of_tiles(const WinogradStrip& s, const float* input, const float* weights,
                                float (*products)[kTogether]) {
    Reg sum[1][T][kRegisters];
    multiply<1, T>(s, input, weights, sum);
    DIRNET_UNROLL
    for (int t = 0; t < T; ++t) {
      DIRNET_UNROLL
      for (int r = 0; r < kRegisters; ++r) V::store(products[t] + r * kLanes, sum[0][t][r]);
    }
  }

  // Calls job(T, first) for `tiles` tiles in groups of V::kTiles and one of the rest: one by one, each would
  // load all the weights for itself.
  template <typename Job>
  static DIRNET_INLINE void in_groups(int64_t tiles, const Job& job) {
    int64_t t = 0;
    for (; t + V::kTiles <= tiles; t += V::kTiles) job(Count<V::kTiles>{}, t);
    rest_group<V::kTiles - 1>(tiles - t, t, job);
  }

  template <int T>
  struct Count {
    static constexpr int kValue = T;
  };

  template <int T, typename Job>
  static DIRNET_INLINE void rest_group(int64_t tiles, int64_t first, const Job& job) {
    if constexpr (T > 0) {
      if (tiles == T) {
        job(Count<T>{}, first);
      } else {
        rest_group<T - 1>(tiles, first, job);
      }
    }
  }

  static void row_of_run(const WinogradStrip& s, const float* input, const float* weights, int64_t tiles,
                         HalfTiles& half_tiles) {
    if constexpr (V::kByRows) {
      in_groups(tiles, [&](auto count, int64_t t) {
        row_of_tiles<decltype(count)::kValue>(s, input + t, weights, half_tiles + t);
      });
    } else {
      alignas(64) float products[6][kRunTiles][kTogether];
      for (int p = 0; p < 6; ++p) {
        in_groups(tiles, [&](auto count, int64_t t) {
          position_of_tiles<decltype(count)::kValue>(s, input + p * s.channels * s.input_pitch + t,
                                                     weights + p * s.channels * kStemLanes, products[p] + t);
        });
      }
      for (int64_t t = 0; t < tiles; ++t) {
        DIRNET_UNROLL
        for (int r = 0; r < kRegisters; ++r) {
          Reg m[6];
          DIRNET_UNROLL
          for (int p = 0; p < 6; ++p) m[p] = V::load(products[p][t] + r * kLanes);
          put_half(m, half_tiles[t], r);
        }
      }
    }
  }

  // The vertical half of A' and the epilogue of `tiles` tiles, for one register of channels.
  static void finish_tiles(const WinogradStrip& s, int64_t first, int64_t tiles, int64_t channel,
                           const HalfTiles (&rows)[6], int r) {
    const Finish finish = finish_of(s.epilogue, channel);
    for (int64_t t = 0; t < tiles; ++t) {
      for (int k = 0; k < 3; ++k) {
        const int64_t column = (first + t) * 3 + k;
        if (column >= s.columns) return;
        Reg m[6];
        Reg y[3];
        DIRNET_UNROLL
        for (int i = 0; i < 6; ++i) m[i] = V::load(rows[i][t][k] + r * kLanes);
        output_transform(m, y);
        DIRNET_UNROLL
        for (int i = 0; i < 3; ++i) {
          V::store(s.output[i] + column * s.out_c + channel, finished(y[i], finish));
        }
      }
    }
  }

  static void winograd(const WinogradStrip& s) {
    static_assert(kStemLanes % kTogether == 0, "weights lie in groups of kStemLanes");
    // All positions' weights and inputs together are more than the nearest cache holds, a row of them is not:
    // each row goes through a run of tiles before the next one.
    alignas(64) HalfTiles rows[6];
    for (int64_t channel = 0; channel < s.out_c; channel += kTogether) {
      const float* weights = s.weights + channel / kStemLanes * kWinogradPositions * s.channels * kStemLanes +
                             channel % kStemLanes;
      for (int64_t first = 0; first < s.tiles; first += kRunTiles) {
        const int64_t tiles = s.tiles - first < kRunTiles ? s.tiles - first : kRunTiles;
        for (int row = 0; row < 6; ++row) {
          row_of_run(s, s.input + row * 6 * s.channels * s.input_pitch + first,
                     weights + row * 6 * s.channels * kStemLanes, tiles, rows[row]);
        }
        for (int r = 0; r < kRegisters; ++r) finish_tiles(s, first, tiles, channel + r * kLanes, rows, r);
      }
    }
  }

  template <int P>
  static DIRNET_INLINE void direct_pixels(const DirectRow& r, int64_t column, int64_t channel) {
    Reg sum[P];
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) sum[p] = V::set1(0.0F);
    const float* weights = r.weights + channel;
    for (int64_t c = 0; c < r.channels; ++c) {
      for (int64_t ky = 0; ky < r.kernel_h; ++ky) {
        const float* x = r.input + c * r.channel_floats + ky * r.input_row_floats + column * r.stride_w;
        for (int64_t kx = 0; kx < r.kernel_w; ++kx, weights += r.out_c) {
          const Reg w = V::load(weights);
          DIRNET_UNROLL
          for (int p = 0; p < P; ++p) sum[p] = V::fma(V::set1(x[p * r.stride_w + kx]), w, sum[p]);
        }
      }
    }
    const Finish finish = finish_of(r.epilogue, channel);
    DIRNET_UNROLL
    for (int p = 0; p < P; ++p) {
      V::store(r.output + (column + p) * r.out_c + channel, finished(sum[p], finish));
    }
  }

  static void direct(const DirectRow& r) {
    constexpr int kPixels = 8;
    for (int64_t channel = 0; channel < r.out_c; channel += kLanes) {
      int64_t column = 0;
      for (; column + kPixels <= r.columns; column += kPixels) direct_pixels<kPixels>(r, column, channel);
      for (; column < r.columns; ++column) direct_pixels<1>(r, column, channel);
    }
  }

  static void max_pool(const PoolRow& r) {
    for (int64_t ox = 0; ox < r.out_w; ++ox) {
      const int64_t first = ox * r.stride_w - r.pad_left;
      const int64_t begin = first < 0 ? 0 : first;
      const int64_t end = first + r.window_w < r.in_w ? first + r.window_w : r.in_w;
      for (int64_t channel = 0; channel < r.out_c; channel += kLanes) {
        Reg most = V::set1(-HUGE_VALF);
        for (int64_t y = 0; y < r.row_count; ++y) {
          for (int64_t x = begin; x < end; ++x) {
            most = V::max(V::load(r.rows[y] + x * r.out_c + channel), most);
          }
        }
        V::store(r.output + ox * r.out_c + channel, most);
      }
    }
  }
};

}  // namespace
}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_STEM_LANES_H_
