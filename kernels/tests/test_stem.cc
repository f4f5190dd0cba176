// The stem: every ISA against the reference's sums in double, on shapes that take either form.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "conv_case.h"
#include "dirnet/stem.h"
#include "stem_shapes.h"
#include "threads.h"

namespace dirnet {
namespace test {

namespace {

struct StemCase {
  StemShape shape;
  std::vector<float> x, weights, bias, slope, threshold;
  StemOutputs outputs;

  StemCase(const StemShape& s, Random& random) : shape(s) {
    fill(&x, s.batch * s.in_c * s.in_h * s.in_w, random);
    fill(&weights, s.out_c * s.in_c * s.kernel_h * s.kernel_w, random);
    fill(&bias, s.out_c, random);
    fill(&slope, s.out_c, random);
    fill(&threshold, s.out_c, random);
  }

  static void fill(std::vector<float>* values, int64_t count, Random& random) {
    for (int64_t i = 0; i < count; ++i) values->push_back(random.symmetric());
  }

  int64_t pixels() const { return shape.batch * shape.out_h() * shape.out_w(); }
};

struct Result {
  std::vector<float> y;
  std::vector<uint64_t> bits;
};

Result run(const StemCase& c, Isa isa, const Parallel& parallel, bool floats = true) {
  const PackedStem stem = pack_stem(isa, c.weights.data(), c.bias.data(), c.shape);
  Result result;
  result.y.assign(static_cast<size_t>(c.pixels() * c.shape.out_c), std::nanf(""));
  result.bits.assign(static_cast<size_t>(c.pixels() * words_for(c.shape.out_c)), ~uint64_t{0});
  StemOutputs outputs = c.outputs;
  outputs.threshold = c.threshold.data();
  outputs.bits = result.bits.data();
  outputs.y = floats ? result.y.data() : nullptr;
  CHECK(!stem.empty() && stem_conv2d(stem, c.x.data(), c.shape, outputs, parallel), isa_name(isa));
  return result;
}

std::string describe(const StemShape& s, Isa isa) {
  std::string text = isa_name(isa);
  for (const int64_t n : {s.batch, s.in_c, s.in_h, s.in_w, s.out_c, s.kernel_h, s.kernel_w, s.stride_h,
                          s.stride_w, s.pad_top, s.pad_left, s.pad_bottom, s.pad_right, s.pool_h, s.pool_w,
                          s.pool_stride_h, s.pool_stride_w, s.pool_top, s.pool_left}) {
    text += " " + std::to_string(n);
  }
  return text;
}

// A sum of n products within [-1, 1] differs by a few times sqrt(n) roundings of its size; in Winograd's
// form, whose matrices' rows have sums of up to 10 and 15, by some ten times as much.
constexpr float kTolerance = 2e-4F;

float tolerance_of(float value) {
  const float magnitude = std::fabs(value);
  return magnitude < 1e3F ? kTolerance : 1e-5F * magnitude;
}

void check_case(const StemCase& c, const Parallel& parallel) {
  const Result expected = run(c, Isa::kReference, Parallel{});
  for (const Isa isa : kernels_to_test()) {
    for (const bool floats : {true, false}) {
      const Result got = run(c, isa, parallel, floats);
      const std::string what = describe(c.shape, isa);
      int64_t far = 0;
      int64_t wrong = 0;
      for (int64_t i = 0; i < c.pixels() * c.shape.out_c; ++i) {
        const float own = expected.y[i];
        if (floats && !(same_float(got.y[i], own) || std::fabs(got.y[i] - own) <= tolerance_of(own))) ++far;
        const int64_t o = i % c.shape.out_c;
        const int64_t word = i / c.shape.out_c * words_for(c.shape.out_c) + o / 64;
        const bool differs = (((got.bits[word] ^ expected.bits[word]) >> (o % 64)) & 1U) != 0;
        if (differs && !(std::fabs(own - c.threshold[o]) <= tolerance_of(own))) ++wrong;
        // Bits are those of the floats that come with them.
        const bool set = ((got.bits[word] >> (o % 64)) & 1U) != 0;
        if (floats && set != (got.y[i] >= c.threshold[o])) ++wrong;
      }
      CHECK(far == 0, what + ": " + std::to_string(far) + " floats");
      CHECK(wrong == 0, what + ": " + std::to_string(wrong) + " bits");
      if (c.shape.out_c % 64 != 0) {
        for (int64_t p = 0; p < c.pixels(); ++p) {
          const int64_t last = (p + 1) * words_for(c.shape.out_c) - 1;
          CHECK(got.bits[last] >> (c.shape.out_c % 64) == 0, what + ": spare bits");
        }
      }
    }
  }
}

StemShape shape_of(int64_t batch, int64_t in_c, int64_t in_h, int64_t in_w, int64_t out_c, int64_t kernel,
                   int64_t stride, int64_t pad, int64_t pool, int64_t pool_stride, int64_t pool_pad) {
  return {batch, in_h, in_w, in_c, out_c,       kernel,      kernel,   stride,   stride,   pad,     pad,
          pad,   pad,  pool, pool, pool_stride, pool_stride, pool_pad, pool_pad, pool_pad, pool_pad};
}

void usual_shapes(Random& random, bool small) {
  const std::vector<StemShape> shapes = {
      shape_of(2, 3, 33, 40, 64, 7, 2, 3, 3, 2, 1),  // ResNet
      shape_of(1, 3, 32, 32, 64, 7, 2, 3, 1, 1, 0), shape_of(1, 1, 29, 23, 20, 8, 2, 3, 2, 2, 0),
      shape_of(1, 3, 18, 21, 33, 4, 1, 1, 3, 1, 1), shape_of(2, 3, 16, 17, 16, 3, 1, 1, 1, 1, 0),
      shape_of(1, 3, 25, 31, 70, 3, 2, 1, 3, 3, 0), shape_of(1, 4, 19, 19, 5, 5, 3, 2, 2, 1, 0),
      shape_of(1, 2, 7, 7, 1, 7, 2, 0, 1, 1, 0),    shape_of(1, 3, 40, 24, 32, 7, 2, 3, 2, 5, 0),
  };
  for (const StemShape& shape : shapes) {
    StemCase c(shape, random);
    ShuffledThreads pool{3, random.bits()};
    check_case(c, Parallel{});
    check_case(c, pool.parallel());
    c.outputs.clip_min = -0.5F;
    c.outputs.clip_max = 0.75F;
    check_case(c, Parallel{});
    c.outputs.slope = c.slope.data();
    check_case(c, pool.parallel());
    if (small) return;
  }
}

void random_shapes(Random& random, int count) {
  for (int i = 0; i < count; ++i) {
    StemShape s{};
    s.batch = 1 + random.below(2);
    s.in_c = 1 + random.below(4);
    s.in_h = 1 + random.below(30);
    s.in_w = 1 + random.below(50);
    s.out_c = 1 + random.below(80);
    const bool winograd = random.coin();
    s.stride_h = winograd ? 1 + random.below(2) : 1 + random.below(3);
    s.stride_w = winograd ? s.stride_h : 1 + random.below(3);
    s.kernel_h = winograd ? 4 * s.stride_h - random.below(s.stride_h) : 1 + random.below(5);
    s.kernel_w = winograd ? 4 * s.stride_w - random.below(s.stride_w) : 1 + random.below(5);
    draw_pads_and_pool(random, &s);
    if (s.out_h() == 0 || s.out_w() == 0) continue;
    ShuffledThreads pool{3, random.bits()};
    StemCase c(s, random);
    if (random.coin()) c.outputs.slope = c.slope.data();
    check_case(c, random.coin() ? pool.parallel() : Parallel{});
  }
}

// None of them may reach an output that does not see it.
void special_values(Random& random) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float value : {std::nanf(""), inf, -inf, 1e8F, -1e20F, 3e38F}) {
    StemCase c(shape_of(2, 3, 30, 30, 24, 7, 2, 3, 3, 2, 1), random);
    c.x[c.x.size() - 400] = value;
    check_case(c, Parallel{});
    c.outputs.slope = c.slope.data();
    check_case(c, Parallel{});
    c.outputs.clip_min = -1.0F;
    c.outputs.clip_max = 1.0F;
    check_case(c, Parallel{});
  }
}

// Padded rows that no memory could hold, of images of a few pixels.
void shapes_without_end() {
  constexpr int64_t kLargest = INT32_MAX;
  StemShape s = shape_of(1, 3, 224, 224, 64, 7, 2, 3, 3, 2, 1);
  CHECK(stem_buffers_fit(s), "an ordinary stem");
  s = shape_of(1, (int64_t{1} << 27) + 1, 1, 1, 1, 1, 1, 0, 1, 1, 0);
  CHECK(stem_buffers_fit(s), "many channels");
  // Of one pixel, from one end of the padding to the other.
  s.pad_left = s.pad_right = s.stride_w = kLargest;
  CHECK(s.conv_w() == 3 && !stem_buffers_fit(s), describe(s, Isa::kReference));
  // In Winograd's form, and as rows of the convolution and of the pooling.
  s = shape_of(1, int64_t{1} << 25, 7, 7, 1, 7, 2, 0, 1, 1, 0);
  s.pad_left = s.pad_right = kLargest;
  CHECK(!stem_buffers_fit(s), describe(s, Isa::kReference));
  s = shape_of(1, 1, 1, 1, 1 << 30, 1, 1, kLargest, 1, 1, 0);
  CHECK(!stem_buffers_fit(s), describe(s, Isa::kReference));
  s = shape_of(1, 1, 1, 1, kLargest, 1, 1, 0, kLargest, 1, kLargest - 1);
  CHECK(!stem_buffers_fit(s), describe(s, Isa::kReference));
}

}  // namespace

}  // namespace test
}  // namespace dirnet

int main(int argc, char** argv) {
  using namespace dirnet::test;
  Random random(seed());
  const bool small = small_suite(argc, argv);
  usual_shapes(random, small);
  random_shapes(random, small ? 10 : 120);
  special_values(random);
  shapes_without_end();
  return finish("test_stem");
}
