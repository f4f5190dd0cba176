#include <algorithm>

#include "driver/stem_rows.h"

namespace dirnet {

namespace {

constexpr int kResidues = kWinogradOutputs;

}  // namespace

WinogradRows::WinogradRows(const StemKernels& kernels, const PackedStem& stem, const StemShape& shape,
                           const StemEpilogue& epilogue, const float* image)
    : kernels_(kernels),
      shape_(shape),
      image_(image),
      stride_(shape.stride_h),
      tiles_(ceil_div(shape.conv_w(), kWinogradOutputs)),
      pitch_(residue_pitch(shape)),
      columns_(residue_row_floats(shape)),
      strip_{},
      memory_(static_cast<size_t>(winograd_floats<int64_t>(shape)) * sizeof(float)) {
  const int64_t channels = winograd_channels(shape);
  float* transformed = reinterpret_cast<float*>(memory_.data());
  ring_ = transformed + kWinogradPositions * channels * strip_pitch(shape);
  half_ = ring_ + shape.in_c * stride_ * kWinogradTile * columns_;
  strip_.input = transformed;
  strip_.weights = stem.floats() + StemOffsets(shape).winograd;
  strip_.channels = channels;
  strip_.input_pitch = strip_pitch(shape);
  strip_.tiles = tiles_;
  strip_.out_c = padded_channels(shape);
  strip_.columns = shape.conv_w();
  strip_.epilogue = epilogue;
}

float* WinogradRows::residues(int64_t channel, int64_t parity, int64_t row) const {
  // Rows above the image count from -1 downwards; the ring has a place for each.
  const int64_t place = (row % kWinogradTile + kWinogradTile) % kWinogradTile;
  return ring_ + ((channel * stride_ + parity) * kWinogradTile + place) * columns_;
}

// Row `row` of the stride-1 convolution's images of this channel and row parity. Tile t sees the columns 3 t
// to 3 t + 5; those of one residue modulo 3 lie side by side here, so that the transform works on whole
// registers of tiles.
void WinogradRows::split_row(int64_t channel, int64_t parity, int64_t row) {
  const StemShape& s = shape_;
  float* to = residues(channel, parity, row);
  const int64_t iy = row * stride_ + parity - s.pad_top;
  if (iy < 0 || iy >= s.in_h) {
    std::fill(to, to + columns_, 0.0F);
    return;
  }
  const float* from = image_ + (channel * s.in_h + iy) * s.in_w;
  const int64_t step = kResidues * stride_;
  for (int64_t b = 0; b < stride_; ++b) {
    for (int64_t u = 0; u < kResidues; ++u, to += pitch_) {
      const int64_t first = stride_ * u + b - s.pad_left;
      // Tiles [begin, end) see a column of the image.
      const int64_t begin = std::min(first < 0 ? ceil_div(-first, step) : 0, pitch_);
      const int64_t end =
          std::max(begin, std::min(first < s.in_w ? ceil_div(s.in_w - first, step) : 0, tiles_ + 1));
      std::fill(to, to + begin, 0.0F);
      const float* pixel = from + first + begin * step;
      for (int64_t t = begin; t < end; ++t, pixel += step) to[t] = *pixel;
      std::fill(to + end, to + pitch_, 0.0F);
    }
  }
}

void WinogradRows::transform(int64_t y) {
  float* transformed = const_cast<float*>(strip_.input);
  const int64_t position_floats = strip_.channels * strip_.input_pitch;
  for (int64_t c = 0; c < shape_.in_c; ++c) {
    for (int64_t a = 0; a < stride_; ++a) {
      const float* in[kWinogradTile];
      float* out[kWinogradTile];
      for (int i = 0; i < kWinogradTile; ++i) {
        in[i] = residues(c, a, y + i);
        out[i] = half_ + i * columns_;
      }
      kernels_.transform_six(in, out, columns_);
      for (int64_t b = 0; b < stride_; ++b) {
        const int64_t channel = (c * stride_ + a) * stride_ + b;
        for (int i = 0; i < kWinogradTile; ++i) {
          for (int j = 0; j < kWinogradTile; ++j) {
            in[j] = half_ + i * columns_ + (b * kResidues + j % kResidues) * pitch_ + j / kResidues;
            out[j] = transformed + (i * kWinogradTile + j) * position_floats + channel * strip_.input_pitch;
          }
          kernels_.transform_six(in, out, strip_.input_pitch);
        }
      }
    }
  }
}

void WinogradRows::write(int64_t y, bool first, float* const (&out)[kWinogradOutputs]) {
  // Six rows are seen, of which three were seen by the call before.
  for (int64_t row = first ? y : y + kWinogradTile - kWinogradOutputs; row < y + kWinogradTile; ++row) {
    for (int64_t c = 0; c < shape_.in_c; ++c) {
      for (int64_t a = 0; a < stride_; ++a) split_row(c, a, row);
    }
  }
  transform(y);
  std::copy(out, out + kWinogradOutputs, strip_.output);
  kernels_.winograd(strip_);
}

}  // namespace dirnet
