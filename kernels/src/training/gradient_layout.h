// Where the numbers of a binary convolution's backward pass lie (int16 each), so that no tile meets a border.
#ifndef DIRNET_SRC_TRAINING_GRADIENT_LAYOUT_H_
#define DIRNET_SRC_TRAINING_GRADIENT_LAYOUT_H_

#include "dirnet/dirnet.h"

namespace dirnet {

// One axis of the images.
struct GradientAxis {
  GradientAxis(int64_t inputs, int64_t outputs, int64_t taps, int64_t step, int64_t pads, int64_t spread);

  int64_t in, out, kernel, stride, pad, dilation;
  // Zeros in front of the gradient, read where a window would begin before the first, and the length with
  // those behind it, too.
  int64_t before, padded;

  // Inputs of one class are `stride` apart; all of them meet the same taps. A tap meets class `first` where
  // it `reaches` it, and then input first + i * stride at output i + `shift`.
  int64_t class_size(int64_t first) const { return (in - first + stride - 1) / stride; }
  bool reaches(int64_t tap, int64_t first) const { return (first + pad - tap * dilation) % stride == 0; }
  int64_t shift(int64_t tap, int64_t first) const { return (first + pad - tap * dilation) / stride; }
};

struct GradientLayout {
  explicit GradientLayout(const Conv2dShape& shape);

  int64_t taps;
  int64_t group_in, group_out;  // channels
  int64_t in_tiles, out_tiles;  // of kDotLanes channels, in a group
  int64_t images;               // of a block, which share a scale
  GradientAxis y, x;

  // Rounded gradient for the inputs', padded with zeros: [image][y][x][channel], an even number of channels.
  int64_t pixel_values;
  int64_t padded_image;
  // The same for the weights': [image][group][tile][y][pair of pixels][lane][2].
  int64_t pairs_row, pairs_tile, pairs_image;
  // Signs: [image][channel][phase][y][x]. Columns that are stride_w apart are neighbours in a phase, so that
  // the inputs of a row of windows are, too. Zeros stand around the image.
  int64_t plane_height, plane_width;
  int64_t phase_values, plane_values, signs_image;
  // Signs of the weights: [group][tile of inputs][tap][pair of outputs][lane][2].
  int64_t tap_values, weights_tile;
};

}  // namespace dirnet

#endif  // DIRNET_SRC_TRAINING_GRADIENT_LAYOUT_H_
