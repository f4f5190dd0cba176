#include <utility>

#include "dirnet/stem.h"
#include "driver/memory.h"
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
  PackedStem packed;
  const StemOffsets offsets(s);
  const size_t bytes = static_cast<size_t>(offsets.total) * sizeof(float);
  packed.allocate(isa, bytes);
  if (packed.empty()) return packed;
  const int64_t taps = s.in_c * s.kernel_h * s.kernel_w;
  for (int64_t o = 0; o < s.out_c; ++o) {
    packed.data_[o] = bias[o];
    for (int64_t tap = 0; tap < taps; ++tap) {
      packed.data_[offsets.direct + tap * padded_channels(s) + o] = weights[o * taps + tap];
    }
  }
  if (takes_winograd(s)) pack_winograd(weights, s, packed.data_ + offsets.winograd);
  return packed;
}

void PackedStem::allocate(Isa isa, size_t bytes) {
  data_ = reinterpret_cast<float*>(allocate_aligned(bytes));
  if (data_ == nullptr) return;
  isa_ = isa;
  size_bytes_ = bytes;
}

PackedStem::PackedStem(PackedStem&& other) noexcept { *this = std::move(other); }

PackedStem& PackedStem::operator=(PackedStem&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(isa_, other.isa_);
  std::swap(quantization_, other.quantization_);
  return *this;
}

PackedStem::~PackedStem() { free_aligned(reinterpret_cast<uint8_t*>(data_)); }

}  // namespace dirnet
