// The stem with weights of bytes: sums are integers, so that every ISA gives the reference's bits.
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

struct Int8Case {
  StemShape shape;
  StemQuantization quantization;
  std::vector<int8_t> weights;
  std::vector<float> x, scale, bias, slope, threshold;
  StemOutputs outputs;

  Int8Case(const StemShape& s, Random& random) : shape(s) {
    quantization.zero_point = static_cast<int32_t>(random.below(256));
    quantization.scale = 1.0F / static_cast<float>(60 + random.below(200));
    // Beyond the ends of the bytes' range, too, and every fourth between two bytes.
    for (int64_t i = 0; i < s.batch * s.in_c * s.in_h * s.in_w; ++i) {
      const float halves = static_cast<float>(random.below(1100) - 550) * 0.5F;
      x.push_back(random.below(4) == 0 ? halves * quantization.scale : 3.0F * random.symmetric());
    }
    for (int64_t i = 0; i < s.out_c * s.in_c * s.kernel_h * s.kernel_w; ++i) {
      weights.push_back(static_cast<int8_t>(random.below(255) - 127));
    }
    for (int64_t o = 0; o < s.out_c; ++o) {
      scale.push_back(random.symmetric() * 1e-4F);
      bias.push_back(random.symmetric());
      slope.push_back(random.symmetric());
      threshold.push_back(random.symmetric());
    }
  }
};

struct Result {
  std::vector<float> y;
  std::vector<uint64_t> bits;
};

Result run(const Int8Case& c, Isa isa, const Parallel& parallel) {
  const StemShape& s = c.shape;
  const int64_t pixels = s.batch * s.out_h() * s.out_w();
  const PackedStem stem =
      pack_int8_stem(isa, c.weights.data(), c.scale.data(), c.bias.data(), c.quantization, s);
  Result result;
  result.y.assign(static_cast<size_t>(pixels * s.out_c), std::nanf(""));
  result.bits.assign(static_cast<size_t>(pixels * ((s.out_c + 63) / 64)), ~uint64_t{0});
  StemOutputs outputs = c.outputs;
  outputs.threshold = c.threshold.data();
  outputs.bits = result.bits.data();
  outputs.y = result.y.data();
  CHECK(!stem.empty() && stem_conv2d(stem, c.x.data(), s, outputs, parallel), isa_name(isa));
  return result;
}

void check_case(const Int8Case& c, const Parallel& parallel) {
  const Result expected = run(c, Isa::kReference, Parallel{});
  for (const Isa isa : kernels_to_test()) {
    const Result got = run(c, isa, parallel);
    std::string what = isa_name(isa);
    for (const int64_t n : {c.shape.in_c, c.shape.in_h, c.shape.in_w, c.shape.out_c, c.shape.kernel_h,
                            c.shape.kernel_w, c.shape.stride_h, c.shape.pad_top, c.shape.pool_h}) {
      what += " " + std::to_string(n);
    }
    int64_t wrong = 0;
    for (size_t i = 0; i < got.y.size(); ++i) wrong += same_float(got.y[i], expected.y[i]) ? 0 : 1;
    CHECK(wrong == 0, what + ": " + std::to_string(wrong) + " floats");
    CHECK(got.bits == expected.bits, what + ": bits");
  }
}

StemShape random_shape(Random& random) {
  StemShape s{};
  s.batch = 1 + random.below(2);
  s.in_c = 1 + random.below(4);
  s.in_h = 1 + random.below(24);
  s.in_w = 1 + random.below(50);
  s.out_c = 1 + random.below(100);
  s.stride_h = 1 + random.below(3);
  s.stride_w = 1 + random.below(3);
  s.kernel_h = 1 + random.below(7);
  s.kernel_w = 1 + random.below(9);
  draw_pads_and_pool(random, &s);
  return s;
}

void random_cases(Random& random, int count) {
  for (int i = 0; i < count; ++i) {
    const StemShape shape = random_shape(random);
    if (shape.out_h() == 0 || shape.out_w() == 0) continue;
    Int8Case c(shape, random);
    if (random.coin()) {
      c.outputs.clip_min = -0.25F;
      c.outputs.clip_max = 0.5F;
    }
    if (random.coin()) c.outputs.slope = c.slope.data();
    ShuffledThreads pool{3, random.bits()};
    check_case(c, random.coin() ? pool.parallel() : Parallel{});
  }
}

// Pixels that are no numbers, infinite, huge or minus zero, next to whole registers and at their ends.
void special_pixels(Random& random) {
  const float inf = std::numeric_limits<float>::infinity();
  const StemShape shape{1, 20, 37, 3, 33, 7, 7, 2, 2, 3, 3, 3, 3, 3, 3, 2, 2, 1, 1, 1, 1};
  Int8Case c(shape, random);
  for (const float value : {std::nanf(""), inf, -inf, 3e38F, -3e38F, -0.0F, 1e-42F}) {
    for (int i = 0; i < 40; ++i)
      c.x[static_cast<size_t>(random.below(static_cast<int64_t>(c.x.size())))] = value;
  }
  check_case(c, Parallel{});
}

}  // namespace

}  // namespace test
}  // namespace dirnet

int main(int argc, char** argv) {
  using namespace dirnet::test;
  Random random(seed());
  random_cases(random, small_suite(argc, argv) ? 15 : 200);
  special_pixels(random);
  return finish("test_stem_int8");
}
