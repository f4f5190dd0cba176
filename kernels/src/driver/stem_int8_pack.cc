#include <cstring>

#include "dirnet/stem.h"
#include "dispatch/kernel_table.h"
#include "driver/stem_layout.h"

namespace dirnet {

namespace {

// Writes one channel's weights: the taps of a row, `pack` of them to a step, those beyond its end zero.
void pack_channel(const int8_t* weights, const StemShape& s, const Int8Form& form, uint8_t* out) {
  const int64_t steps = Int8Offsets::steps(s, form);
  const int64_t step_bytes = kStemLanes * form.pack * form.element_bytes;
  for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
    for (int64_t c = 0; c < s.in_c; ++c) {
      uint8_t* run = out + (ky * s.in_c + c) * steps * step_bytes;
      for (int64_t kx = 0; kx < s.kernel_w; ++kx) {
        const int8_t weight = weights[(c * s.kernel_h + ky) * s.kernel_w + kx];
        uint8_t* to = run + kx / form.pack * step_bytes + kx % form.pack * form.element_bytes;
        const int16_t wide = weight;
        std::memcpy(to, form.element_bytes == 1 ? static_cast<const void*>(&weight) : &wide,
                    static_cast<size_t>(form.element_bytes));
      }
    }
  }
}

}  // namespace

PackedStem pack_int8_stem(Isa isa, const int8_t* weights, const float* scale, const float* bias,
                          const StemQuantization& quantization, const StemShape& s) {
  const StemKernels* kernels = stem_kernels_of(isa);
  const Int8Form form = kernels != nullptr ? Int8Form{kernels->pack, kernels->element_bytes} : Int8Form{};
  const Int8Offsets offsets(s, form);
  PackedStem packed(isa, static_cast<size_t>(offsets.total));
  if (packed.empty()) return packed;
  packed.quantization_ = quantization;
  const size_t floats = static_cast<size_t>(s.out_c) * sizeof(float);
  std::memcpy(packed.data_, bias, floats);
  std::memcpy(packed.data_ + offsets.scale, scale, floats);
  const int64_t taps = s.in_c * s.kernel_h * s.kernel_w;
  if (kernels == nullptr) {
    std::memcpy(packed.data_ + offsets.weights, weights, static_cast<size_t>(s.out_c * taps));
    return packed;
  }
  for (int64_t o = 0; o < s.out_c; ++o) {
    const int64_t group = o / kStemLanes * Int8Offsets::group_bytes(s, form);
    const int64_t lane = o % kStemLanes * form.pack * form.element_bytes;
    pack_channel(weights + o * taps, s, form, packed.data_ + offsets.weights + group + lane);
    if (form.element_bytes != 1) continue;
    // sum of (q - z) * w = sum of q * w, - z * sum of w: padding is q = z, so all taps always count.
    int32_t sum = 0;
    for (int64_t i = 0; i < taps; ++i) sum += weights[o * taps + i];
    const int32_t start = -quantization.zero_point * sum;
    std::memcpy(packed.data_ + offsets.start + o * 4, &start, sizeof(start));
  }
  return packed;
}

}  // namespace dirnet
