// The inner loops of a binary convolution's backward pass, of one ISA. Plain data and functions only, for the
// same reason as in driver/tile.h.
//
// Both convolutions are sums of products of 16-bit numbers, two at a time: a pair is two neighbouring numbers
// of 16 bits. One operand is read pair by pair and multiplied with all lanes, the other has a pair in each of
// kDotLanes lanes.
#ifndef DIRNET_SRC_TRAINING_GRADIENT_LOOPS_H_
#define DIRNET_SRC_TRAINING_GRADIENT_LOOPS_H_

#include <stdint.h>

namespace dirnet {

constexpr int kDotLanes = 16;
constexpr int64_t kDotStep = 2 * kDotLanes;  // int16 of one pair in every lane
// As many rows as the widest tile of any ISA has.
constexpr int kMostDotRows = 12;

// Where a run of `pairs` pairs begins in either operand, in int16 from the operands' pointers.
struct DotSegment {
  int64_t rows;
  int64_t lanes;
};

// A tile: sum[i][l] = the products of row i with lane l over all segments. A row's pairs are neighbours, a
// lane's are kDotStep apart.
struct DotOperands {
  const int16_t* rows[kMostDotRows];
  const int16_t* lanes;
  const DotSegment* segments;
  int64_t segment_count;
  int64_t pairs;
};

// Neighbouring channels of `count` pixels, all in one word of each.
struct SignRun {
  const uint64_t* bits;  // of the first pixel
  int64_t step;          // words from one pixel to the next
  int64_t count;
  int shift;     // of the first channel in its word
  int channels;  // 1 .. 16
};

struct GradientLoops {
  int dot_rows;  // of a full tile; both functions take 1 .. dot_rows rows
  // to[i][l] = scale * sum[i][l], l < channels.
  void (*dots)(const DotOperands& operands, int row_count, float scale, float* const* to, int channels);
  // sums[i * kDotLanes + l] += scale[l] * sum[i][l]
  void (*add_dots)(const DotOperands& operands, int row_count, const float* scale, float* sums);

  // largest[c] = the largest magnitude of channel c, or NaN; values of a pixel are `stride` apart from the
  // next's.
  void (*magnitudes)(const float* values, int64_t pixels, int64_t channels, int64_t stride, float* largest);
  // to[p * to_stride + c] = round(values[p * stride + c] * factors[c])
  void (*round_pixels)(const float* values, int64_t pixels, int64_t channels, int64_t stride,
                       const float* factors, int16_t* to, int64_t to_stride);
  // The same for up to kDotLanes channels, pairs of pixels in each lane: to[(p / 2 * kDotLanes + c) * 2 + p %
  // 2]; lanes past `channels`, and the second of an odd row's last pair, become 0. `factors` are kDotLanes.
  void (*round_pixel_pairs)(const float* values, int64_t pixels, int channels, int64_t stride,
                            const float* factors, int16_t* to);
  // to[c * plane + p] = 1 or -1
  void (*signs)(const SignRun& run, int16_t* to, int64_t plane);
};

}  // namespace dirnet

#endif  // DIRNET_SRC_TRAINING_GRADIENT_LOOPS_H_
