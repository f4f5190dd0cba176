// What the stem's driver hands to a micro-kernel: plain data only, for the same reason as in tile.h.
#ifndef DIRNET_SRC_DRIVER_STEM_TILE_H_
#define DIRNET_SRC_DRIVER_STEM_TILE_H_

#include <stdint.h>

namespace dirnet {

// Winograd F(3x3, 4x4): a tile of 6 x 6 inputs gives 3 x 3 outputs of a 4 x 4 kernel with stride 1.
constexpr int kWinogradTile = 6;
constexpr int kWinogradOutputs = 3;
constexpr int kWinogradTaps = 4;
constexpr int kWinogradPositions = kWinogradTile * kWinogradTile;
// Output channels of a stem are padded to a multiple of this, which every ISA's registers divide.
constexpr int kStemLanes = 16;

// What follows a sum: v = sum + bias, then clipped, then slope * v where it is negative. Bias and slope have
// as many numbers as there are padded channels.
struct StemEpilogue {
  const float* bias;
  const float* slope;  // null for none
  float clip_min;
  float clip_max;
};

// A strip of Winograd tiles side by side: three rows of up to 3 * tiles output pixels of all channels.
struct WinogradStrip {
  const float* input;    // [position][channel][input_pitch], transformed; tiles side by side
  const float* weights;  // [group of kStemLanes][position][channel][kStemLanes], transformed
  int64_t channels;
  int64_t input_pitch;
  int64_t tiles;
  int64_t out_c;                    // padded
  int64_t columns;                  // at most 3 * tiles: the columns that are wanted
  float* output[kWinogradOutputs];  // of each row, [column][out_c]
  StemEpilogue epilogue;
};

// One row of a plain convolution over an image that is padded already.
struct DirectRow {
  const float* input;    // first row of the window, [channel][channel_floats], rows row_floats apart
  const float* weights;  // [channel][ky][kx][out_c]
  int64_t channels;
  int64_t kernel_h, kernel_w;
  int64_t stride_w;
  int64_t channel_floats;
  int64_t input_row_floats;
  int64_t out_c;  // padded
  int64_t columns;
  float* output;  // [column][out_c]
  StemEpilogue epilogue;
};

// One row of a convolution of bytes, planes of the image side by side as the taps of a row are. An element of
// the image is as the ISA wants it (StemKernels): a byte with its zero point in it, or 16 bits without.
struct Int8Row {
  const uint8_t* const* planes;  // [kernel row][channel]: the row of the padded plane
  const uint8_t* weights;        // [group of kStemLanes][kernel row][channel][step][lane][pack]
  int64_t runs;                  // kernel rows times channels
  int64_t steps;                 // of `pack` taps to a run
  int64_t stride_w;
  int64_t out_c;  // padded
  int64_t columns;
  float* output;         // [column][out_c]
  const int32_t* start;  // of each sum
  const float* scale;    // of each sum, before what StemEpilogue does
  StemEpilogue epilogue;
};

// One row of a max pooling over `rows`, each [in_w][out_c]; taps beyond their ends are left out, and NaN is
// passed over.
struct PoolRow {
  const float* const* rows;
  int64_t row_count;
  int64_t in_w;
  int64_t window_w, stride_w, pad_left;
  int64_t out_w;
  int64_t out_c;  // padded
  float* output;  // [out_w][out_c]
};

// The stem's kernels of one ISA. Counts are multiples of kStemLanes.
struct StemKernels {
  // One half of the input's transform, on each of `count` columns: six numbers in, six out.
  void (*transform_six)(const float* const* in, float* const* out, int64_t count);
  void (*winograd)(const WinogradStrip& strip);
  void (*direct)(const DirectRow& row);
  void (*max_pool)(const PoolRow& row);

  int pack;           // taps that one step of int8_row multiplies and adds for a lane
  int element_bytes;  // 1: unsigned bytes q, and signed bytes of weights; 2: q - zero_point in 16 bits each
  void (*int8_row)(const Int8Row& row);
  // q = round(x / scale), ties to even, + zero_point, within 0 and 255; 0 for NaN.
  void (*quantize)(const float* x, int64_t count, float scale, int32_t zero_point, uint8_t* elements);
};

extern const StemKernels kPortableStem;
extern const StemKernels kAvx2Stem;
extern const StemKernels kAvx512Stem;
extern const StemKernels kNeonStem;

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_STEM_TILE_H_
