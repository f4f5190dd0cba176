// Where PackedStem holds what, and which form of the convolution a shape takes.
#ifndef DIRNET_SRC_DRIVER_STEM_LAYOUT_H_
#define DIRNET_SRC_DRIVER_STEM_LAYOUT_H_

#include "dirnet/stem.h"
#include "driver/layout.h"
#include "driver/stem_tile.h"

namespace dirnet {

inline int64_t round_up(int64_t value, int64_t multiple) { return ceil_div(value, multiple) * multiple; }

inline int64_t padded_channels(const StemShape& s) { return round_up(s.out_c, kStemLanes); }

// A convolution of stride 2 is the sum of four of stride 1, one for each parity of row and column, on every
// other pixel of the image and every other tap of the kernel. Winograd's form then needs 48 multiplications
// for each channel and output where a 7 x 7 kernel needs 147 for three channels.
inline bool takes_winograd(const StemShape& s) {
  return s.stride_h == s.stride_w && s.stride_h <= 2 && ceil_div(s.kernel_h, s.stride_h) == kWinogradTaps &&
         ceil_div(s.kernel_w, s.stride_w) == kWinogradTaps;
}

// Channels of the convolution of stride 1: (channel, row parity, column parity).
inline int64_t winograd_channels(const StemShape& s) { return s.in_c * s.stride_h * s.stride_w; }

struct StemOffsets {
  int64_t direct, winograd, total;  // in floats; the bias comes first

  explicit StemOffsets(const StemShape& s)
      : direct(padded_channels(s)),
        winograd(direct + s.in_c * s.kernel_h * s.kernel_w * padded_channels(s)),
        total(winograd +
              (takes_winograd(s) ? kWinogradPositions * winograd_channels(s) * padded_channels(s) : 0)) {}
};

// The form of int8_row's operands; none at all for the reference, which reads the weights as they came.
struct Int8Form {
  int64_t pack = 1;
  int64_t element_bytes = 0;
};

// The same for weights of bytes, in bytes: bias, scale and start of each padded channel, then the weights,
// for int8_row or as they came.
struct Int8Offsets {
  int64_t scale, start, weights, total;

  Int8Offsets(const StemShape& s, const Int8Form& form)
      : scale(padded_channels(s) * 4),
        start(scale + padded_channels(s) * 4),
        weights(start + padded_channels(s) * 4),
        total(weights + (form.element_bytes == 0 ? s.out_c * s.in_c * s.kernel_h * s.kernel_w
                                                 : padded_channels(s) / kStemLanes * group_bytes(s, form))) {}

  static int64_t steps(const StemShape& s, const Int8Form& form) { return ceil_div(s.kernel_w, form.pack); }
  // Of kStemLanes channels.
  static int64_t group_bytes(const StemShape& s, const Int8Form& form) {
    return s.kernel_h * s.in_c * steps(s, form) * kStemLanes * form.pack * form.element_bytes;
  }
};

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_STEM_LAYOUT_H_
