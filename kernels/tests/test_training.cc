// What trainings compute: every ISA against double precision, and to the bit against each other, on ragged
// shapes and for any threads.
#include <cmath>
#include <limits>

#include "conv_case.h"
#include "dirnet/training.h"
#include "sign_conv_shapes.h"
#include "threads.h"

namespace dirnet {
namespace test {

namespace {

float from_bfloat16(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// The nearer of the two neighbours, the even one of two equally near.
uint16_t to_bfloat16(float value) {
  if (std::isnan(value)) return 0x7FC0;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint16_t below = static_cast<uint16_t>(bits >> 16);  // towards zero
  const uint16_t above = static_cast<uint16_t>(below + 1);
  if (std::isinf(value)) return below;
  // Beyond the largest bfloat16 the next one would be 2^128.
  const double largest = std::ldexp(1.0, 128);
  const double up = std::isinf(from_bfloat16(above)) ? std::copysign(largest, value) : from_bfloat16(above);
  const double to_below = std::fabs(value - static_cast<double>(from_bfloat16(below)));
  const double to_above = std::fabs(up - static_cast<double>(value));
  if (to_below != to_above) return to_below < to_above ? below : above;
  return below % 2 == 0 ? below : above;
}

// Values of either type, with guard zones.
class Tensor {
 public:
  Tensor(FloatType type, int64_t size) : type_(type), floats_(size), halves_(size) {}
  Tensor(FloatType type, const std::vector<float>& values)
      : Tensor(type, static_cast<int64_t>(values.size())) {
    for (int64_t i = 0; i < size(); ++i) {
      floats_.data()[i] = values[static_cast<size_t>(i)];
      halves_.data()[i] = to_bfloat16(values[static_cast<size_t>(i)]);
    }
  }
  void* data() { return half() ? static_cast<void*>(halves_.data()) : floats_.data(); }
  int64_t size() const { return floats_.size(); }
  float operator[](int64_t i) const { return half() ? from_bfloat16(halves_[i]) : floats_[i]; }
  bool intact() const { return floats_.intact() && halves_.intact(); }
  bool equals(const Tensor& other) const {
    bool same = other.size() == size();
    for (int64_t i = 0; same && i < size(); ++i) same = same_float((*this)[i], other[i]);
    return same;
  }

 private:
  bool half() const { return type_ == FloatType::kBfloat16; }
  FloatType type_;
  Guarded<float> floats_;
  Guarded<uint16_t> halves_;
};

std::vector<float> random_floats(int64_t size, Random& random, float scale = 1.0F, float centre = 0.0F) {
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = centre + scale * random.symmetric();
  return values;
}

struct TailCase {
  int64_t pixels, channels;
  FloatType type;
  TailActivation activation;
  bool has_residual, has_shift;
  std::vector<float> x, residual, y_gradient, gain, offset, shift, slope;

  TailCase(int64_t pixel_count, int64_t channel_count, FloatType float_type, TailActivation ending,
           bool with_residual, bool with_shift, Random& random)
      : pixels(pixel_count),
        channels(channel_count),
        type(float_type),
        activation(ending),
        has_residual(with_residual),
        has_shift(with_shift),
        x(random_floats(pixels * channels, random, 2.0F, 3.0F)),
        residual(random_floats(pixels * channels, random)),
        y_gradient(random_floats(pixels * channels, random)),
        gain(random_floats(channels, random, 1.0F, 1.5F)),
        offset(random_floats(channels, random)),
        shift(random_floats(channels, random)),
        slope(random_floats(channels, random, 0.5F)) {}

  std::string name(Isa isa) const {
    return std::string(isa_name(isa)) + ": tail of " + std::to_string(pixels) + " x " +
           std::to_string(channels) + ", type " + std::to_string(static_cast<int>(type)) + ", activation " +
           std::to_string(static_cast<int>(activation)) + (has_residual ? ", residual" : "") +
           (has_shift ? ", shift" : "");
  }
};

struct TailResult {
  Tensor y, x_gradient, residual_gradient;
  Guarded<float> mean, variance, gain, offset, slope;

  explicit TailResult(const TailCase& c)
      : y(c.type, c.pixels * c.channels),
        x_gradient(c.type, c.pixels * c.channels),
        residual_gradient(c.type, c.pixels * c.channels),
        mean(c.channels),
        variance(c.channels),
        gain(c.channels),
        offset(c.channels),
        slope(c.channels) {}

  bool intact() const {
    return y.intact() && x_gradient.intact() && residual_gradient.intact() && mean.intact() &&
           variance.intact() && gain.intact() && offset.intact() && slope.intact();
  }
};

TailResult run_tail(const TailCase& c, Isa isa, const Parallel& parallel) {
  TailResult result(c);
  Tensor x(c.type, c.x), residual(c.type, c.residual), y_gradient(c.type, c.y_gradient);
  NormTail tail;
  tail.pixels = c.pixels;
  tail.channels = c.channels;
  tail.type = c.type;
  tail.x = x.data();
  tail.residual = c.has_residual ? residual.data() : nullptr;
  tail.gain = c.gain.data();
  tail.offset = c.offset.data();
  tail.shift = c.has_shift ? c.shift.data() : nullptr;
  tail.epsilon = 1e-3F;
  tail.activation = c.activation;
  const bool has_slope = c.activation == TailActivation::kPrelu;
  tail.slope = has_slope ? c.slope.data() : nullptr;
  tail.clip_min = -0.75F;
  tail.clip_max = 1.25F;
  bool done = norm_tail(isa, tail, result.y.data(), result.mean.data(), result.variance.data(), parallel);
  NormTailGradients gradients;
  gradients.x = result.x_gradient.data();
  gradients.residual = c.has_residual ? result.residual_gradient.data() : nullptr;
  gradients.gain = result.gain.data();
  gradients.offset = result.offset.data();
  gradients.slope = has_slope ? result.slope.data() : nullptr;
  done = done && norm_tail_backward(isa, tail, result.mean.data(), result.variance.data(), y_gradient.data(),
                                    gradients, parallel);
  CHECK(done && result.intact(), c.name(isa) + ": memory");
  return result;
}

bool near(double actual, double expected, double tolerance) {
  return std::fabs(actual - expected) <= tolerance * (1.0 + std::fabs(expected));
}

// The operands as the loops see them.
struct SeenTensors {
  Tensor x, residual, y_gradient;
};

// One channel in double precision, by the formulas of training.h.
bool channel_is_right(const TailCase& c, const SeenTensors& seen, const TailResult& result, int64_t channel) {
  const Tensor &x = seen.x, &residual = seen.residual, &y_gradient = seen.y_gradient;
  const size_t at_channel = static_cast<size_t>(channel);
  const double count = static_cast<double>(c.pixels);
  double mean = 0.0, variance = 0.0;
  for (int64_t p = 0; p < c.pixels; ++p) mean += x[p * c.channels + channel] / count;
  for (int64_t p = 0; p < c.pixels; ++p)
    variance += std::pow(x[p * c.channels + channel] - mean, 2.0) / count;
  const double deviation = std::sqrt(variance + 1e-3);
  const double tolerance = c.type == FloatType::kBfloat16 ? 0.01 : 2e-5;
  bool right = near(result.mean[channel], mean, 1e-5) && near(result.variance[channel], variance, 1e-5);

  std::vector<double> g(static_cast<size_t>(c.pixels));
  double g_sum = 0.0, gu_sum = 0.0, slope_sum = 0.0;
  for (int64_t p = 0; p < c.pixels; ++p) {
    const int64_t i = p * c.channels + channel;
    const double u = (x[i] - mean) / deviation;
    double v = u * c.gain[at_channel] + c.offset[at_channel];
    if (c.has_residual) v += residual[i];
    if (c.has_shift) v += c.shift[at_channel];
    const double d = y_gradient[i];
    double y = v, dv = d;
    double kink = std::numeric_limits<double>::infinity();
    if (c.activation == TailActivation::kPrelu) {
      const double slope = c.slope[at_channel];
      y = v > 0 ? v : slope * v;
      dv = v > 0 ? d : slope * d;
      slope_sum += v > 0 ? 0.0 : d * v;
      kink = std::fabs(v);
    } else if (c.activation == TailActivation::kClip) {
      y = std::fmin(std::fmax(v, -0.75), 1.25);
      dv = v > -0.75 && v < 1.25 ? d : 0.0;
      kink = std::fmin(std::fabs(v + 0.75), std::fabs(v - 1.25));
    }
    // Which side of a kink a value falls on may be rounding: nothing is said about such a channel's
    // gradients.
    if (kink < 1e-5) return right;
    right = right && near(result.y[i], y, tolerance);
    if (c.has_residual) right = right && near(result.residual_gradient[i], dv, tolerance);
    g[static_cast<size_t>(p)] = dv;
    g_sum += dv;
    gu_sum += dv * u;
  }
  const double sum_tolerance = 2e-5 * std::sqrt(count);
  right = right && near(result.offset[channel], g_sum, sum_tolerance) &&
          near(result.gain[channel], gu_sum, sum_tolerance);
  if (c.activation == TailActivation::kPrelu)
    right = right && near(result.slope[channel], slope_sum, sum_tolerance);
  for (int64_t p = 0; p < c.pixels; ++p) {
    const int64_t i = p * c.channels + channel;
    const double u = (x[i] - mean) / deviation;
    const double expected =
        c.gain[at_channel] / deviation * (g[static_cast<size_t>(p)] - g_sum / count - u * gu_sum / count);
    // g itself is rounded before the mean is taken off.
    const double magnified = 1.0 + c.gain[at_channel] / deviation;
    right = right && near(result.x_gradient[i], expected, tolerance * magnified);
  }
  return right;
}

bool same_floats(const Guarded<float>& a, const Guarded<float>& b) {
  bool same = true;
  for (int64_t i = 0; i < a.size(); ++i) same = same && same_float(a[i], b[i]);
  return same;
}

bool same_tail(const TailResult& a, const TailResult& b) {
  return a.y.equals(b.y) && a.x_gradient.equals(b.x_gradient) &&
         a.residual_gradient.equals(b.residual_gradient) && same_floats(a.mean, b.mean) &&
         same_floats(a.variance, b.variance) && same_floats(a.gain, b.gain) &&
         same_floats(a.offset, b.offset) && same_floats(a.slope, b.slope);
}

void check_tail(const TailCase& c, Random& random) {
  const TailResult expected = run_tail(c, Isa::kReference, Parallel{});
  const SeenTensors seen{{c.type, c.x}, {c.type, c.residual}, {c.type, c.y_gradient}};
  bool right = true;
  for (int64_t channel = 0; channel < c.channels; ++channel)
    right = right && channel_is_right(c, seen, expected, channel);
  CHECK(right, c.name(Isa::kReference) + ": against double precision");
  for (const Isa isa : isas_to_test()) {
    ShuffledThreads shuffled{3, random.bits()};
    CHECK(same_tail(expected, run_tail(c, isa, Parallel{})), c.name(isa) + ": another result");
    CHECK(same_tail(expected, run_tail(c, isa, shuffled.parallel())), c.name(isa) + ": threads change it");
  }
}

void check_tails(Random& random, bool small) {
  const int64_t shapes[][2] = {{2, 1}, {5, 3}, {1, 16}, {7, 40}, {66, 17}, {1500, 16}, {300, 70}, {3, 9000}};
  for (const auto& shape : shapes) {
    if (small && shape[0] * shape[1] > 2000) continue;
    for (const FloatType type : {FloatType::kFloat32, FloatType::kBfloat16}) {
      for (int options = 0; options < 4 * kTailActivationCount; ++options) {
        check_tail(TailCase(shape[0], shape[1], type, static_cast<TailActivation>(options / 4),
                            options % 2 == 1, options / 2 % 2 == 1, random),
                   random);
      }
    }
  }
}

// What is not finite reaches the result and stays in its channel.
void check_not_finite(Random& random) {
  for (const float value : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (int activation = 0; activation < kTailActivationCount; ++activation) {
      TailCase c(9, 5, FloatType::kBfloat16, static_cast<TailActivation>(activation), true, true, random);
      c.residual[3 * 5 + 2] = value;
      c.y_gradient[4 * 5 + 1] = value;
      const TailResult expected = run_tail(c, Isa::kReference, Parallel{});
      const float y = expected.y[3 * 5 + 2];
      const bool clipped = !std::isnan(value) && c.activation == TailActivation::kClip;
      CHECK(clipped ? y == 1.25F : !std::isfinite(y), c.name(Isa::kReference) + ": lost what is not finite");
      CHECK(std::isfinite(expected.y[3 * 5 + 1]) && std::isfinite(expected.x_gradient[4 * 5 + 0]),
            c.name(Isa::kReference) + ": left its channel");
      for (const Isa isa : isas_to_test())
        CHECK(same_tail(expected, run_tail(c, isa, Parallel{})), c.name(isa) + ": not finite");
    }
  }
}

void check_sign_conv(const Conv2dShape& shape, Random& random) {
  const int64_t group_channels = shape.in_c / shape.group, taps = shape.kernel_h * shape.kernel_w;
  const int64_t pixels = shape.batch * shape.in_h * shape.in_w;
  const int64_t out_size = shape.batch * shape.out_h() * shape.out_w() * shape.out_c;
  std::vector<float> x = random_floats(pixels * shape.in_c, random);
  const std::vector<float> threshold = random_floats(shape.in_c, random, 0.3F);
  if (!x.empty()) x[0] = std::nanf("");
  std::vector<float> scale(static_cast<size_t>(shape.out_c));
  for (float& value : scale) value = 0.37F + static_cast<float>(random.below(3));
  std::vector<float> weights(static_cast<size_t>(shape.out_c * taps * group_channels));
  for (size_t i = 0; i < weights.size(); ++i) {
    const float s = scale[i / static_cast<size_t>(taps * group_channels)];
    weights[i] = random.coin() ? s : -s;
  }
  for (const FloatType x_type : {FloatType::kFloat32, FloatType::kBfloat16}) {
    Tensor values(x_type, x);
    std::vector<float> seen(x.size());
    for (int64_t i = 0; i < values.size(); ++i) seen[static_cast<size_t>(i)] = values[i];
    const std::vector<float> zeros(static_cast<size_t>(shape.in_c + shape.out_c));
    std::vector<uint64_t> bits(static_cast<size_t>(pixels * words_for(shape.in_c)));
    std::vector<uint64_t> weight_bits(static_cast<size_t>(shape.out_c * taps * words_for(group_channels)));
    binarize(Isa::kReference, seen.data(), pixels, shape.in_c, threshold.data(), bits.data(), Parallel{});
    binarize(Isa::kReference, weights.data(), shape.out_c * taps, group_channels, zeros.data(),
             weight_bits.data(), Parallel{});
    std::vector<float> expected(static_cast<size_t>(out_size));
    Epilogue epilogue;
    epilogue.scale = scale.data();
    epilogue.bias = zeros.data();
    epilogue.y = expected.data();
    binary_conv2d(pack_weights(Isa::kReference, weight_bits.data(), shape), bits.data(), shape, epilogue,
                  Parallel{});
    for (const FloatType y_type : {FloatType::kFloat32, FloatType::kBfloat16}) {
      const Tensor rounded(y_type, expected);
      for (const Isa isa : isas_to_test()) {
        for (const int threads : {0, 3}) {
          Tensor y(y_type, out_size);
          ShuffledThreads shuffled{threads, random.bits()};
          const bool done = sign_conv2d(isa, x_type, values.data(), threshold.data(), weights.data(), shape,
                                        y_type, y.data(), threads > 0 ? shuffled.parallel() : Parallel{});
          CHECK(done && y.intact() && y.equals(rounded),
                std::string(isa_name(isa)) + ": convolution of signs, " + std::to_string(shape.in_c) +
                    " to " + std::to_string(shape.out_c) + " channels");
        }
      }
    }
  }
}

void check_rounding(Random& random) {
  std::vector<float> values = {0.0F, -0.0F, std::nanf(""), -std::nanf(""), 3.4e38F, -3.4e38F, 1e-42F};
  values.push_back(std::numeric_limits<float>::infinity());
  values.push_back(-std::numeric_limits<float>::infinity());
  while (values.size() < 20000) {  // ties and their neighbours among them
    uint32_t bits = static_cast<uint32_t>(random.bits());
    if (random.coin()) bits = (bits & 0xFFFF0000U) | (0x7FFFU + static_cast<uint32_t>(random.below(3)));
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    values.push_back(value);
  }
  // With one input and one tap a sum is the sign of its weight, so that the results are the weights.
  const int64_t count = static_cast<int64_t>(values.size());
  const Conv2dShape shape{1, 1, 1, 1, count, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1};
  const float x = 1.0F, threshold = 0.0F;
  for (const Isa isa : isas_to_test()) {
    Tensor y(FloatType::kBfloat16, count);
    sign_conv2d(isa, FloatType::kFloat32, &x, &threshold, values.data(), shape, FloatType::kBfloat16,
                y.data(), Parallel{});
    bool same = y.intact();
    for (int64_t i = 0; i < count; ++i) {
      const float value = values[static_cast<size_t>(i)];
      const float signed_scale = value >= 0.0F ? std::fabs(value) : -std::fabs(value);
      // The sum is +-1 times the scale, plus a bias of +0.
      same = same && same_float(y[i], from_bfloat16(to_bfloat16(signed_scale + 0.0F)));
    }
    CHECK(same, std::string(isa_name(isa)) + ": rounding to bfloat16");
  }
}

}  // namespace

}  // namespace test
}  // namespace dirnet

int main(int argc, char** argv) {
  using namespace dirnet;
  using namespace dirnet::test;
  Random random(seed());
  const bool small = small_suite(argc, argv);
  check_tails(random, small);
  check_not_finite(random);
  check_rounding(random);
  for (const Conv2dShape& shape : kSignConvShapes) check_sign_conv(shape, random);
  if (!small) check_sign_conv({5, 90, 90, 4, 20, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, random);
  return finish("test_training");
}
