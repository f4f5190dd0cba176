// The backward pass of a binary convolution: every ISA against sums of double precision, and to the bit
// against each other, on ragged shapes and for any threads.
#include <algorithm>
#include <cmath>
#include <limits>

#include "conv_case.h"
#include "dirnet/training.h"
#include "sign_conv_shapes.h"
#include "threads.h"

namespace dirnet {
namespace test {

namespace {

enum class Gradient {
  kWhole,  // whole numbers up to 32,767, which rounding leaves as they are
  kAny
};

struct BackwardCase {
  Conv2dShape shape;
  FloatType type;
  std::vector<float> x, threshold, weights, scale, y_gradient;

  int64_t group_in() const { return shape.in_c / shape.group; }
  int64_t group_out() const { return shape.out_c / shape.group; }
  int64_t taps() const { return shape.kernel_h * shape.kernel_w; }
  int64_t out_pixels() const { return shape.out_h() * shape.out_w(); }
  int64_t x_size() const { return shape.batch * shape.in_h * shape.in_w * shape.in_c; }
  std::string name(Isa isa) const {
    std::string text = std::string(isa_name(isa)) + ": gradients of the shape";
    for (const int64_t n :
         {shape.batch, shape.in_h, shape.in_w, shape.in_c, shape.out_c, shape.kernel_h, shape.kernel_w,
          shape.stride_h, shape.stride_w, shape.pad_top, shape.pad_left, shape.pad_bottom, shape.pad_right,
          shape.dilation_h, shape.dilation_w, shape.group}) {
      text += " " + std::to_string(n);
    }
    return text + ", type " + std::to_string(static_cast<int>(type));
  }
};

std::vector<float> random_floats(int64_t size, Random& random) {
  std::vector<float> values(static_cast<size_t>(size));
  for (float& value : values) value = random.symmetric();
  return values;
}

// What a bfloat16 keeps of a float, towards zero.
float cut(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits &= 0xFFFF0000U;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

BackwardCase make_backward(const Conv2dShape& shape, FloatType type, Gradient kind, Random& random) {
  BackwardCase c{shape, type, {}, {}, {}, {}, {}};
  c.x = random_floats(c.x_size(), random);
  c.threshold = random_floats(shape.in_c, random);
  for (int64_t o = 0; o < shape.out_c; ++o) {
    const float scale = kind == Gradient::kWhole ? 1.0F : 0.25F + static_cast<float>(random.below(5));
    c.scale.push_back(scale);
    for (int64_t i = 0; i < c.taps() * c.group_in(); ++i) c.weights.push_back(random.coin() ? scale : -scale);
  }
  c.y_gradient = random_floats(shape.batch * c.out_pixels() * shape.out_c, random);
  if (kind == Gradient::kWhole) {
    // Every channel of every image has the largest magnitude somewhere, or all are 0.
    for (size_t i = 0; i < c.y_gradient.size(); ++i) {
      const bool first_pixel = static_cast<int64_t>(i) / shape.out_c % c.out_pixels() == 0;
      c.y_gradient[i] = first_pixel ? (random.coin() ? 32767.0F : -32767.0F)
                                    : static_cast<float>(random.below(65535)) - 32767.0F;
    }
  }
  if (type == FloatType::kBfloat16) {
    for (float& value : c.x) value = cut(value);
    for (float& value : c.y_gradient) value = cut(value);
  }
  return c;
}

struct BackwardResult {
  std::vector<float> signs;
  Guarded<float> weights;
  bool intact;
};

std::vector<uint16_t> halves_of(const std::vector<float>& values) {
  std::vector<uint16_t> halves;
  for (const float value : values) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    halves.push_back(static_cast<uint16_t>(bits >> 16));
  }
  return halves;
}

BackwardResult run_backward(const BackwardCase& c, Isa isa, const Parallel& parallel) {
  BackwardResult result{std::vector<float>(static_cast<size_t>(c.x_size())),
                        Guarded<float>(c.shape.out_c * c.taps() * c.group_in()), false};
  const bool half = c.type == FloatType::kBfloat16;
  const std::vector<uint16_t> x = halves_of(c.x), y_gradient = halves_of(c.y_gradient);
  Guarded<float> floats(half ? 0 : c.x_size());
  Guarded<uint16_t> halves(half ? c.x_size() : 0);
  const SignConvGradients gradients{half ? static_cast<void*>(halves.data()) : floats.data(),
                                    result.weights.data()};
  const bool done = sign_conv2d_backward(
      isa, c.type, half ? static_cast<const void*>(x.data()) : c.x.data(), c.threshold.data(),
      c.weights.data(), c.shape, c.type,
      half ? static_cast<const void*>(y_gradient.data()) : c.y_gradient.data(), gradients, parallel);
  for (int64_t i = 0; i < c.x_size(); ++i) {
    uint32_t bits = half ? static_cast<uint32_t>(halves[i]) << 16 : 0;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    result.signs[static_cast<size_t>(i)] = half ? value : floats[i];
  }
  result.intact = done && floats.intact() && halves.intact() && result.weights.intact();
  return result;
}

// The sums, and those of the magnitudes that rounding errors are in proportion to.
struct Expected {
  std::vector<double> signs, weights, signs_error, weights_error;
};

double largest_magnitude(const std::vector<float>& values) {
  float largest = 0.0F;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

Expected expect(const BackwardCase& c) {
  const Conv2dShape& s = c.shape;
  Expected e{std::vector<double>(c.x.size()), std::vector<double>(c.weights.size()),
             std::vector<double>(c.x.size()), std::vector<double>(c.weights.size())};
  const double half_step = largest_magnitude(c.y_gradient) / 65534.0;
  const double largest_scale = largest_magnitude(c.scale);
  for (int64_t n = 0; n < s.batch; ++n) {
    for (int64_t p = 0; p < c.out_pixels(); ++p) {
      for (int64_t o = 0; o < s.out_c; ++o) {
        const double g = c.y_gradient[static_cast<size_t>((n * c.out_pixels() + p) * s.out_c + o)];
        for (int64_t tap = 0; tap < c.taps(); ++tap) {
          const int64_t y = p / s.out_w() * s.stride_h - s.pad_top + tap / s.kernel_w * s.dilation_h;
          const int64_t x = p % s.out_w() * s.stride_w - s.pad_left + tap % s.kernel_w * s.dilation_w;
          if (y < 0 || y >= s.in_h || x < 0 || x >= s.in_w) continue;
          for (int64_t channel = 0; channel < c.group_in(); ++channel) {
            const int64_t c_in = o / c.group_out() * c.group_in() + channel;
            const size_t at_x = static_cast<size_t>(((n * s.in_h + y) * s.in_w + x) * s.in_c + c_in);
            const size_t at_w = static_cast<size_t>((o * c.taps() + tap) * c.group_in() + channel);
            const double sign = c.x[at_x] >= c.threshold[static_cast<size_t>(c_in)] ? 1.0 : -1.0;
            e.signs[at_x] += g * c.weights[at_w];
            e.weights[at_w] += g * sign;
            e.signs_error[at_x] += half_step * largest_scale;
            e.weights_error[at_w] += half_step;
          }
        }
      }
    }
  }
  return e;
}

bool within(double actual, double expected, double error, double rounding) {
  return std::fabs(actual - expected) <= 1.01 * error + rounding * (1e-3 + std::fabs(expected));
}

// `error` is how many of the errors that rounding to whole numbers may make are allowed, `rounding` what
// float arithmetic is.
bool near_all(const BackwardResult& actual, const Expected& expected, double error, double rounding) {
  for (size_t i = 0; i < actual.signs.size(); ++i) {
    if (!within(actual.signs[i], expected.signs[i], error * expected.signs_error[i], rounding)) return false;
  }
  for (size_t i = 0; i < expected.weights.size(); ++i) {
    const double weight = actual.weights[static_cast<int64_t>(i)];
    if (!within(weight, expected.weights[i], error * expected.weights_error[i], 1e-5)) return false;
  }
  return true;
}

bool same(const BackwardResult& a, const BackwardResult& b) {
  bool equal = a.intact && b.intact;
  for (size_t i = 0; equal && i < a.signs.size(); ++i) equal = same_float(a.signs[i], b.signs[i]);
  for (int64_t i = 0; equal && i < a.weights.size(); ++i) equal = same_float(a.weights[i], b.weights[i]);
  return equal;
}

void check_backward(const Conv2dShape& shape, Random& random) {
  for (const FloatType type : {FloatType::kFloat32, FloatType::kBfloat16}) {
    for (const Gradient kind : {Gradient::kWhole, Gradient::kAny}) {
      const BackwardCase c = make_backward(shape, type, kind, random);
      const BackwardResult first = run_backward(c, Isa::kReference, Parallel{});
      const Expected expected = expect(c);
      const double error = kind == Gradient::kWhole && type == FloatType::kFloat32 ? 0.0 : 1.0;
      const double rounding = type == FloatType::kBfloat16 ? 0.005 : 1e-5;
      CHECK(first.intact && near_all(first, expected, error, rounding),
            c.name(Isa::kReference) + ": against double precision");
      for (const Isa isa : isas_to_test()) {
        ShuffledThreads shuffled{3, random.bits()};
        CHECK(same(first, run_backward(c, isa, Parallel{})), c.name(isa) + ": another result");
        CHECK(same(first, run_backward(c, isa, shuffled.parallel())), c.name(isa) + ": threads change it");
      }
    }
  }
}

// Strides beyond the kernel, padding beyond the image, dilation and groups, in any combination.
Conv2dShape random_shape(Random& random) {
  Conv2dShape s{};
  s.batch = 1 + random.below(3);
  s.in_h = 1 + random.below(9);
  s.in_w = 1 + random.below(9);
  s.group = 1 + random.below(3);
  s.in_c = s.group * (1 + random.below(20));
  s.out_c = s.group * (1 + random.below(20));
  s.kernel_h = 1 + random.below(4);
  s.kernel_w = 1 + random.below(4);
  s.stride_h = 1 + random.below(5);
  s.stride_w = 1 + random.below(5);
  s.pad_top = random.below(12);
  s.pad_left = random.below(12);
  s.pad_bottom = random.below(12);
  s.pad_right = random.below(12);
  s.dilation_h = 1 + random.below(4);
  s.dilation_w = 1 + random.below(4);
  return s;
}

void check_random_shapes(Random& random, int count) {
  for (int checked = 0; checked < count;) {
    const Conv2dShape shape = random_shape(random);
    if (shape.out_h() == 0 || shape.out_w() == 0) continue;
    check_backward(shape, random);
    ++checked;
  }
}

// What is not finite reaches every gradient that it has a part in, and no other block's; gradients too small
// to have an inverse are zeros.
void check_extremes(Random& random) {
  const Conv2dShape shape{2, 33, 33, 5, 6, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  for (const float value : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    BackwardCase c = make_backward(shape, FloatType::kFloat32, Gradient::kAny, random);
    c.y_gradient[2] = value;
    for (const Isa isa : isas_to_test()) {
      const BackwardResult result = run_backward(c, isa, Parallel{});
      const size_t second_image = result.signs.size() / 2;
      CHECK(std::isnan(result.signs[0]), c.name(isa) + ": lost what is not finite");
      CHECK(std::isfinite(result.signs[second_image]), c.name(isa) + ": left its block");
      const int64_t of_output = c.taps() * c.group_in();
      CHECK(std::isnan(result.weights[2 * of_output]) && std::isfinite(result.weights[of_output]),
            c.name(isa) + ": a weight of what is not finite");
    }
  }
  BackwardCase tiny = make_backward(shape, FloatType::kFloat32, Gradient::kAny, random);
  for (float& value : tiny.y_gradient) value *= 1e-38F;
  for (const Isa isa : isas_to_test()) {
    const BackwardResult result = run_backward(tiny, isa, Parallel{});
    bool zero = result.intact;
    for (const float gradient : result.signs) {
      if (gradient != 0.0F) zero = false;
    }
    CHECK(zero && result.weights[0] == 0.0F, tiny.name(isa) + ": tiny gradients");
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
  check_extremes(random);
  for (const Conv2dShape& shape : kSignConvShapes) check_backward(shape, random);
  check_backward({2, 6, 6, 3, 1, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1}, random);
  check_backward({1, 3, 3, 5, 7, 2, 2, 3, 3, 2, 0, 1, 4, 1, 1, 1}, random);
  check_backward({2, 7, 7, 6, 9, 3, 3, 2, 1, 4, 0, 3, 2, 2, 3, 3}, random);
  check_random_shapes(random, small ? 5 : 80);
  if (!small) {
    check_backward({40, 16, 16, 16, 32, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1}, random);
    check_backward({1, 70, 70, 24, 20, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, random);
  }
  return finish("test_sign_conv_backward");
}
