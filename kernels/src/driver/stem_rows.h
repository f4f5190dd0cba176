// The rows of a stem's convolution, one after the other, in each of its forms.
#ifndef DIRNET_SRC_DRIVER_STEM_ROWS_H_
#define DIRNET_SRC_DRIVER_STEM_ROWS_H_

#include "dirnet/stem.h"
#include "driver/memory.h"
#include "driver/stem_layout.h"

namespace dirnet {

// One image's convolution row by row, each tap by tap.
class DirectRows {
 public:
  DirectRows(const StemKernels& kernels, const PackedStem& stem, const StemShape& shape,
             const StemEpilogue& epilogue, const float* image);
  bool ok() const { return window_.data() != nullptr; }
  // Writes row `y` of the convolution, [conv_w][padded channels].
  void write(int64_t y, float* out);

 private:
  const StemKernels& kernels_;
  const StemShape& shape_;
  const float* image_;
  int64_t width_;  // of a padded row, in floats
  DirectRow row_;
  AlignedBuffer window_;  // [channel][kernel row][width_]
};

// One image's convolution three rows at a time, in Winograd's form.
class WinogradRows {
 public:
  WinogradRows(const StemKernels& kernels, const PackedStem& stem, const StemShape& shape,
               const StemEpilogue& epilogue, const float* image);
  bool ok() const { return memory_.data() != nullptr; }
  // Writes the rows y, y + 1 and y + 2. Calls go downwards, from row `first` by three.
  void write(int64_t y, bool first, float* const (&out)[kWinogradOutputs]);

 private:
  void split_row(int64_t channel, int64_t parity, int64_t row);
  void transform(int64_t y);

  // Pixels of one residue, side by side: [channel][row parity][row % 6][column parity][residue][pitch_].
  float* residues(int64_t channel, int64_t parity, int64_t row) const;

  const StemKernels& kernels_;
  const StemShape& shape_;
  const float* image_;
  int64_t stride_;
  int64_t tiles_;
  int64_t pitch_;    // of a strip of residues, with room for one tile more
  int64_t columns_;  // of a row's residues, all column parities together
  WinogradStrip strip_;
  AlignedBuffer memory_;
  float* ring_;
  float* half_;  // the rows of one channel and parity, transformed downwards: [6][columns_]
};

// One image's convolution row by row, of bytes.
class Int8Rows {
 public:
  Int8Rows(const StemKernels& kernels, const PackedStem& stem, const StemShape& shape,
           const StemEpilogue& epilogue, const float* image);
  bool ok() const {
    return held_.data() != nullptr && planes_.data() != nullptr && memory_.data() != nullptr;
  }
  // Writes row `y` of the convolution, [conv_w][padded channels].
  void write(int64_t y, float* out);

 private:
  void quantize_row(int64_t iy, uint8_t* planes) const;

  const StemKernels& kernels_;
  const StemShape& shape_;
  StemQuantization quantization_;
  const float* image_;
  int64_t width_;        // of a padded row, in elements
  int64_t plane_bytes_;  // of one channel of it
  Int8Row row_;
  AlignedBuffer held_;    // the image's row in each place of the ring, -1 for none
  AlignedBuffer planes_;  // row_.planes
  AlignedBuffer memory_;  // a ring of rows, [row % kernel_h][channel][plane_bytes_], then a plane of padding
};

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_STEM_ROWS_H_
