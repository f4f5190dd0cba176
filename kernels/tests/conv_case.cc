#include "conv_case.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dirnet {
namespace test {

namespace {

void fill_bits(std::vector<uint64_t>* words, int64_t rows, int64_t channels, Random& random) {
  const int64_t row_words = words_for(channels);
  words->resize(static_cast<size_t>(rows * row_words));
  for (int64_t i = 0; i < rows * row_words; ++i) {
    const int64_t left = channels - i % row_words * 64;
    const uint64_t mask = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
    (*words)[static_cast<size_t>(i)] = random.bits() & mask;
  }
}

float special_value(Random& random) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float values[] = {0.0F,
                          -0.0F,
                          infinity,
                          -infinity,
                          std::nanf(""),
                          std::numeric_limits<float>::denorm_min(),
                          -std::numeric_limits<float>::denorm_min()};
  return values[random.below(7)];
}

void fill_floats(std::vector<float>* values, int64_t size, float range, Random& random) {
  values->resize(static_cast<size_t>(size));
  for (float& v : *values) v = random.below(16) == 0 ? special_value(random) : random.symmetric() * range;
}

float bit_value(const std::vector<uint64_t>& words, int64_t row, int64_t channels, int64_t channel) {
  const uint64_t word = words[static_cast<size_t>(row * words_for(channels) + channel / 64)];
  return (word >> (channel % 64) & 1) != 0 ? 1.0F : -1.0F;
}

int64_t out_pixels(const Conv2dShape& s) { return s.batch * s.out_h() * s.out_w(); }

ConvResult empty_result(const ConvCase& c) {
  const Conv2dShape& s = c.shape;
  return {Guarded<float>(c.kind.y ? out_pixels(s) * s.out_c : 0),
          Guarded<uint64_t>(c.kind.bits ? out_pixels(s) * words_for(s.out_c) : 0)};
}

}  // namespace

int64_t words_for(int64_t channels) { return channels / 64 + (channels % 64 != 0 ? 1 : 0); }

EpilogueKind epilogue_kind(int index) {
  EpilogueKind kind;
  kind.residual = (index & 1) != 0;
  kind.clip = (index & 2) != 0;
  kind.slope = (index & 4) != 0;
  kind.y = index / 8 != 1;
  kind.bits = index / 8 != 0;
  return kind;
}

std::string ConvCase::name() const {
  const Conv2dShape& s = shape;
  std::string text;
  const auto add = [&text](const char* label, std::initializer_list<int64_t> values) {
    text += label;
    const char* separator = "";
    for (const int64_t v : values) {
      text += separator + std::to_string(v);
      separator = "x";
    }
    text += ' ';
  };
  add("in=", {s.batch, s.in_h, s.in_w, s.in_c});
  add("out=", {s.out_c});
  add("kernel=", {s.kernel_h, s.kernel_w});
  add("stride=", {s.stride_h, s.stride_w});
  add("pads=", {s.pad_top, s.pad_left, s.pad_bottom, s.pad_right});
  add("dilation=", {s.dilation_h, s.dilation_w});
  add("group=", {s.group});
  if (kind.residual) text += "+residual";
  if (kind.clip) text += "+clip";
  if (kind.slope) text += "+slope";
  if (kind.y) text += "+y";
  if (kind.bits) text += "+bits";
  return text;
}

ConvCase make_case(const Conv2dShape& s, const EpilogueKind& kind, Random& random) {
  ConvCase c;
  c.shape = s;
  c.kind = kind;
  fill_bits(&c.input, s.batch * s.in_h * s.in_w, s.in_c, random);
  fill_bits(&c.weights, s.out_c * s.kernel_h * s.kernel_w, s.in_c / s.group, random);
  fill_floats(&c.scale, s.out_c, 2.0F, random);
  fill_floats(&c.bias, s.out_c, 8.0F, random);
  fill_floats(&c.slope, s.out_c, 1.0F, random);
  fill_floats(&c.threshold, s.out_c, 8.0F, random);
  if (kind.residual) fill_floats(&c.residual, out_pixels(s) * s.out_c, 8.0F, random);
  // Thresholds that are met exactly by plain values: scale 1, bias 0, an integer threshold.
  for (int64_t o = 0; o < s.out_c; o += 5) {
    const size_t i = static_cast<size_t>(o);
    c.scale[i] = 1.0F;
    c.bias[i] = 0.0F;
    c.threshold[i] = static_cast<float>(random.below(9) - 4);
  }
  // No PReLU at all, or none in some blocks; and a scale that cannot be doubled.
  if (random.coin()) std::fill(c.slope.begin(), c.slope.begin() + random.below(s.out_c + 1), 1.0F);
  if (random.below(4) == 0) c.scale[static_cast<size_t>(random.below(s.out_c))] = 3e38F;
  c.clip_min = kind.clip ? random.symmetric() * 8.0F - 4.0F : -std::numeric_limits<float>::infinity();
  c.clip_max = kind.clip ? random.symmetric() * 8.0F + 8.0F : std::numeric_limits<float>::infinity();
  return c;
}

ConvResult run_case(const ConvCase& c, Isa isa, const Parallel& parallel, Sum sum) {
  ConvResult result = empty_result(c);
  Epilogue e;
  e.scale = c.scale.data();
  e.bias = c.bias.data();
  e.slope = c.kind.slope ? c.slope.data() : nullptr;
  e.residual = c.kind.residual ? c.residual.data() : nullptr;
  e.clip_min = c.clip_min;
  e.clip_max = c.clip_max;
  e.threshold = c.kind.bits ? c.threshold.data() : nullptr;
  e.y = c.kind.y ? result.y.data() : nullptr;
  if (sum == Sum::kInPlace && c.kind.residual && c.kind.y) {
    std::memcpy(result.y.data(), c.residual.data(), c.residual.size() * sizeof(float));
    e.residual = result.y.data();
  }
  e.bits = c.kind.bits ? result.bits.data() : nullptr;
  PackedWeights packed = pack_weights(isa, c.weights.data(), c.shape);
  const PackedWeights moved = static_cast<PackedWeights&&>(packed);
  CHECK(packed.empty() && !moved.empty() && moved.size_bytes() > 0 && moved.isa() == isa,
        "packed weights move");
  CHECK(binary_conv2d(moved, c.input.data(), c.shape, e, parallel), "memory for a convolution");
  return result;
}

ConvResult run_oracle(const ConvCase& c) {
  const Conv2dShape& s = c.shape;
  ConvResult result = empty_result(c);
  const int64_t group_in = s.in_c / s.group;
  const int64_t padded_h = s.in_h + s.pad_top + s.pad_bottom;
  const int64_t padded_w = s.in_w + s.pad_left + s.pad_right;
  std::vector<float> image(static_cast<size_t>(s.batch * padded_h * padded_w * s.in_c), 0.0F);
  for (int64_t n = 0; n < s.batch; ++n) {
    for (int64_t y = 0; y < s.in_h; ++y) {
      for (int64_t x = 0; x < s.in_w; ++x) {
        const int64_t to = (n * padded_h + y + s.pad_top) * padded_w + x + s.pad_left;
        for (int64_t k = 0; k < s.in_c; ++k) {
          image[static_cast<size_t>(to * s.in_c + k)] =
              bit_value(c.input, (n * s.in_h + y) * s.in_w + x, s.in_c, k);
        }
      }
    }
  }
  if (c.kind.bits)
    std::memset(result.bits.data(), 0, static_cast<size_t>(result.bits.size()) * sizeof(uint64_t));
  int64_t pixel = 0;
  for (int64_t n = 0; n < s.batch; ++n) {
    for (int64_t y = 0; y + (s.kernel_h - 1) * s.dilation_h < padded_h; y += s.stride_h) {
      for (int64_t x = 0; x + (s.kernel_w - 1) * s.dilation_w < padded_w; x += s.stride_w, ++pixel) {
        for (int64_t o = 0; o < s.out_c; ++o) {
          float sum = 0.0F;
          for (int64_t tap = 0; tap < s.kernel_h * s.kernel_w; ++tap) {
            const int64_t iy = y + tap / s.kernel_w * s.dilation_h;
            const int64_t ix = x + tap % s.kernel_w * s.dilation_w;
            const int64_t from =
                ((n * padded_h + iy) * padded_w + ix) * s.in_c + o / (s.out_c / s.group) * group_in;
            for (int64_t k = 0; k < group_in; ++k) {
              sum += image[static_cast<size_t>(from + k)] *
                     bit_value(c.weights, o * s.kernel_h * s.kernel_w + tap, group_in, k);
            }
          }
          const size_t i = static_cast<size_t>(o);
          float value = sum * c.scale[i];
          value += c.bias[i];
          if (c.kind.residual) value += c.residual[static_cast<size_t>(pixel * s.out_c + o)];
          if (value < c.clip_min) value = c.clip_min;
          if (value > c.clip_max) value = c.clip_max;
          if (c.kind.slope && value < 0.0F) value *= c.slope[i];
          if (c.kind.y) result.y.data()[pixel * s.out_c + o] = value;
          if (c.kind.bits && value >= c.threshold[i]) {
            result.bits.data()[pixel * words_for(s.out_c) + o / 64] |= uint64_t{1} << (o % 64);
          }
        }
      }
    }
  }
  return result;
}

bool same_result(const ConvCase& c, const ConvResult& expected, const ConvResult& actual,
                 std::string* difference) {
  if (!actual.y.intact() || !actual.bits.intact()) {
    *difference = "wrote outside an output";
    return false;
  }
  for (int64_t i = 0; i < expected.y.size(); ++i) {
    if (same_float(expected.y[i], actual.y[i])) continue;
    *difference = "y pixel " + std::to_string(i / c.shape.out_c) + " channel " +
                  std::to_string(i % c.shape.out_c) + ": " + std::to_string(actual.y[i]) + " instead of " +
                  std::to_string(expected.y[i]);
    return false;
  }
  for (int64_t i = 0; i < expected.bits.size(); ++i) {
    if (expected.bits[i] == actual.bits[i]) continue;
    *difference = "bits word " + std::to_string(i);
    return false;
  }
  return true;
}

std::vector<Isa> kernels_to_test() {
  std::vector<Isa> found;
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (isa != Isa::kReference && isa_built(isa) && isa_supported(isa)) found.push_back(isa);
  }
  return found;
}

std::vector<Isa> isas_to_test() {
  std::vector<Isa> isas = {Isa::kReference};
  for (const Isa isa : kernels_to_test()) isas.push_back(isa);
  return isas;
}

}  // namespace test
}  // namespace dirnet
