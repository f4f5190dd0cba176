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

// Sizes of what a convolution of floats works in. Number is int64_t, or double for shapes whose sizes may be
// beyond 64 bits; the factors themselves never are.

// The convolution's rows that a band keeps: those of a window, and those that Winograd's form is ahead.
inline int64_t ring_rows(const StemShape& s) {
  return (s.pool_h < s.conv_h() ? s.pool_h : s.conv_h()) + 2 * kWinogradOutputs;
}

// These rows, then one pooled row.
template <class Number>
Number band_floats(const StemShape& s) {
  return (Number(ring_rows(s)) * Number(s.conv_w()) + Number(s.out_w())) * Number(padded_channels(s));
}

// Of a padded row of the image, as far as a row of the convolution sees it.
inline int64_t seen_width(const StemShape& s) { return (s.conv_w() - 1) * s.stride_w + s.kernel_w; }

// The rows that one row of the convolution sees.
template <class Number>
Number window_floats(const StemShape& s) {
  return Number(s.in_c) * Number(s.kernel_h) * Number(seen_width(s));
}

// Tiles of a row, and residues of a row of pixels, with room for one tile more (see WinogradRows).
inline int64_t strip_pitch(const StemShape& s) {
  return round_up(ceil_div(s.conv_w(), kWinogradOutputs), kStemLanes);
}
inline int64_t residue_pitch(const StemShape& s) { return strip_pitch(s) + kStemLanes; }
inline int64_t residue_row_floats(const StemShape& s) {
  return s.stride_w * kWinogradOutputs * residue_pitch(s);
}

// The transformed input, then the ring of residues, then the rows that are transformed downwards.
template <class Number>
Number winograd_floats(const StemShape& s) {
  const Number rows = Number(kWinogradTile) * Number(residue_row_floats(s));
  return Number(kWinogradPositions) * Number(winograd_channels(s)) * Number(strip_pitch(s)) +
         Number(s.in_c) * Number(s.stride_h) * rows + rows;
}

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
