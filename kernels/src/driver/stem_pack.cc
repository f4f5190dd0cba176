#include "dirnet/stem.h"
#include "driver/stem_layout.h"

namespace dirnet {

namespace {

// The rows of G for F(3, 4) at the points 0, 1, -1, 2, -2 and infinity. With B' and A' as in stem_lanes.h,
// y = A' [(G g G') * (B' d B)] A.
constexpr double kG[kWinogradTile][kWinogradTaps] = {
    {1.0 / 4, 0, 0, 0},
    {-1.0 / 6, -1.0 / 6, -1.0 / 6, -1.0 / 6},
    {-1.0 / 6, 1.0 / 6, -1.0 / 6, 1.0 / 6},
    {1.0 / 24, 1.0 / 12, 1.0 / 6, 1.0 / 3},
    {1.0 / 24, -1.0 / 12, 1.0 / 6, -1.0 / 3},
    {0, 0, 0, 1},
};

// Writes the 36 numbers of one output and one of the stride-1 convolution's channels, `step` floats apart.
void transform_taps(const double (&taps)[kWinogradTaps][kWinogradTaps], float* out, int64_t step) {
  for (int i = 0; i < kWinogradTile; ++i) {
    for (int j = 0; j < kWinogradTile; ++j) {
      double sum = 0;
      for (int p = 0; p < kWinogradTaps; ++p) {
        for (int q = 0; q < kWinogradTaps; ++q) sum += kG[i][p] * taps[p][q] * kG[j][q];
      }
      out[(i * kWinogradTile + j) * step] = static_cast<float>(sum);
    }
  }
}

void pack_winograd(const float* weights, const StemShape& s, float* out) {
  const int64_t channels = winograd_channels(s);
  const int64_t stride = s.stride_h;
  for (int64_t o = 0; o < s.out_c; ++o) {
    float* group = out + o / kStemLanes * kWinogradPositions * channels * kStemLanes + o % kStemLanes;
    for (int64_t v = 0; v < channels; ++v) {
      const int64_t c = v / (stride * stride);
      const int64_t a = v / stride % stride;
      const int64_t b = v % stride;
      double taps[kWinogradTaps][kWinogradTaps] = {};
      for (int64_t p = 0; p * stride + a < s.kernel_h; ++p) {
        for (int64_t q = 0; q * stride + b < s.kernel_w; ++q) {
          taps[p][q] =
              weights[((o * s.in_c + c) * s.kernel_h + p * stride + a) * s.kernel_w + q * stride + b];
        }
      }
      transform_taps(taps, group + v * kStemLanes, channels * kStemLanes);
    }
  }
}

}  // namespace

PackedStem pack_stem(Isa isa, const float* weights, const float* bias, const StemShape& s) {
  const StemOffsets offsets(s);
  PackedStem packed(isa, static_cast<size_t>(offsets.total) * sizeof(float));
  if (packed.empty()) return packed;
  float* floats = reinterpret_cast<float*>(packed.data_);
  const int64_t taps = s.in_c * s.kernel_h * s.kernel_w;
  for (int64_t o = 0; o < s.out_c; ++o) {
    floats[o] = bias[o];
    for (int64_t tap = 0; tap < taps; ++tap) {
      floats[offsets.direct + tap * padded_channels(s) + o] = weights[o * taps + tap];
    }
  }
  if (takes_winograd(s)) pack_winograd(weights, s, floats + offsets.winograd);
  return packed;
}

}  // namespace dirnet
