// Every ISA of this machine against the reference, and the reference against a float convolution.
#include <cmath>
#include <limits>

#include "conv_case.h"
#include "driver/tile.h"
#include "threads.h"

namespace dirnet {
namespace test {

namespace {

int64_t pick(Random& random, std::initializer_list<int64_t> choices) {
  return choices.begin()[random.below(static_cast<int64_t>(choices.size()))];
}

int64_t macs(const Conv2dShape& s) {
  return s.batch * s.out_h() * s.out_w() * s.out_c * s.kernel_h * s.kernel_w * (s.in_c / s.group);
}

constexpr int64_t kOracleMacs = 4 * 1000 * 1000;

void check_case(const ConvCase& c, Random& random) {
  const ConvResult expected = run_case(c, Isa::kReference, Parallel{});
  std::string difference;
  CHECK(expected.y.intact() && expected.bits.intact(), "reference wrote outside an output: " + c.name());
  if (macs(c.shape) <= kOracleMacs) {
    CHECK(same_result(c, run_oracle(c), expected, &difference), "reference, " + c.name() + ": " + difference);
  }
  for (const Isa isa : kernels_to_test()) {
    const std::string name = std::string(isa_name(isa)) + ", " + c.name() + ": ";
    CHECK(same_result(c, expected, run_case(c, isa, Parallel{}), &difference), name + difference);
    ShuffledThreads threads{1 + static_cast<int>(random.below(3)), random.bits()};
    CHECK(same_result(c, expected, run_case(c, isa, threads.parallel(), Sum::kInPlace), &difference),
          "threads, in place, " + name + difference);
  }
}

Conv2dShape random_geometry(int64_t in_c, int64_t out_c, int64_t kernel_h, int64_t kernel_w, Random& random) {
  Conv2dShape s{};
  s.batch = 1 + random.below(3);
  s.in_c = in_c;
  s.out_c = out_c;
  s.kernel_h = kernel_h;
  s.kernel_w = kernel_w;
  s.stride_h = 1 + random.below(3);
  s.stride_w = 1 + random.below(3);
  s.dilation_h = 1 + random.below(2);
  s.dilation_w = 1 + random.below(2);
  s.group = 1;
  // Now and then pads beyond the kernel's reach: the outermost pixels then see no tap at all.
  const int64_t reach_h = (kernel_h - 1) * s.dilation_h + (random.below(6) == 0 ? 2 : 0);
  const int64_t reach_w = (kernel_w - 1) * s.dilation_w + (random.below(6) == 0 ? 2 : 0);
  s.pad_top = random.below(reach_h + 1);
  s.pad_bottom = random.below(reach_h + 1);
  s.pad_left = random.below(reach_w + 1);
  s.pad_right = random.below(reach_w + 1);
  s.in_h = 1 + random.below(9);
  s.in_w = 1 + random.below(9);
  while (s.out_h() == 0) ++s.in_h;
  while (s.out_w() == 0) ++s.in_w;
  return s;
}

struct Kernel {
  int64_t h, w;
};

void test_ragged_shapes(bool small, Random& random) {
  const std::initializer_list<int64_t> all_in = {1, 3, 31, 32, 33, 63, 64, 65, 100, 128, 130, 256};
  const std::initializer_list<int64_t> few_in = {1, 33, 64, 130};
  const std::initializer_list<int64_t> all_out = {1, 5, 16, 17, 33, 64, 70};
  const std::initializer_list<int64_t> few_out = {5, 64, 70};
  const std::initializer_list<Kernel> all_kernels = {{1, 1}, {3, 3}, {1, 3}, {5, 5}, {7, 7}};
  const std::initializer_list<Kernel> few_kernels = {{1, 1}, {3, 3}, {1, 3}};
  for (const int64_t in_c : small ? few_in : all_in) {
    for (const int64_t out_c : small ? few_out : all_out) {
      for (const Kernel kernel : small ? few_kernels : all_kernels) {
        for (int repeat = 0; repeat < 2; ++repeat) {
          Conv2dShape s = random_geometry(in_c, out_c, kernel.h, kernel.w, random);
          if (small) s.batch = 1;
          const EpilogueKind kind = epilogue_kind(static_cast<int>(random.below(kEpilogueKinds)));
          check_case(make_case(s, kind, random), random);
        }
      }
    }
  }
}

void test_groups(bool small, Random& random) {
  struct Channels {
    int64_t in, out, group;
  };
  const std::initializer_list<Channels> all = {
      {64, 64, 2},  {96, 96, 3},   {100, 20, 4},  {130, 70, 2},  {33, 33, 33},  {128, 128, 4}, {256, 128, 2},
      {72, 36, 9},  {128, 200, 8}, {200, 300, 2}, {16, 80, 16},  {320, 130, 5}, {24, 2, 2},    {96, 256, 4},
      {65, 65, 65}, {96, 96, 2},   {288, 192, 3}, {168, 168, 7}, {120, 240, 3}, {224, 112, 2}, {264, 264, 3}};
  for (const Channels channels : all) {
    for (int repeat = 0; repeat < (small ? 1 : 8); ++repeat) {
      const int64_t kernel = pick(random, {1, 3});
      Conv2dShape s = random_geometry(channels.in, channels.out, kernel, kernel, random);
      if (small) s.batch = 1;
      s.group = channels.group;
      const EpilogueKind kind =
          epilogue_kind(8 * static_cast<int>(random.below(3)) + static_cast<int>(random.below(8)));
      check_case(make_case(s, kind, random), random);
    }
  }
}

// Groups that share blocks, and such as only nearly do: few channels in each, as many, more or fewer coming
// out.
void test_narrow_groups(bool small, Random& random) {
  struct Width {
    int64_t in, out;
  };
  const std::initializer_list<Width> widths = {{1, 1},   {1, 2},   {1, 3},   {2, 2},   {2, 4},   {3, 3},
                                               {4, 4},   {4, 1},   {4, 6},   {5, 5},   {8, 8},   {8, 2},
                                               {8, 24},  {12, 12}, {16, 16}, {16, 8},  {16, 24}, {16, 5},
                                               {24, 24}, {32, 32}, {32, 16}, {32, 48}, {32, 80}};
  for (const Width width : widths) {
    for (const int64_t groups : {int64_t{2}, int64_t{3}, 2 + random.below(40), 64 / width.in + 1}) {
      if (small && groups * width.in > 100) continue;
      if (groups == 1) continue;
      const Kernel kernel = {pick(random, {1, 3, 5}), pick(random, {1, 3, 5})};
      Conv2dShape s = random_geometry(width.in * groups, width.out * groups, kernel.h, kernel.w, random);
      if (small) s.batch = 1;
      s.group = groups;
      const EpilogueKind kind = epilogue_kind(static_cast<int>(random.below(kEpilogueKinds)));
      check_case(make_case(s, kind, random), random);
    }
  }
}

// Kernels that are large or flat, with every stride and dilation up to three.
void test_large_kernels(bool small, Random& random) {
  for (const Kernel kernel :
       {Kernel{11, 11}, Kernel{1, 7}, Kernel{7, 1}, Kernel{1, 15}, Kernel{5, 2}, Kernel{7, 7}}) {
    for (const int64_t channels : {32, 48, 96}) {
      for (const int64_t groups : {1, 2, 3}) {
        Conv2dShape s = random_geometry(channels * groups, 40 * groups, kernel.h, kernel.w, random);
        s.batch = 1;
        s.group = groups;
        s.dilation_w = 1 + random.below(3);
        while (s.out_w() == 0) ++s.in_w;
        if (small && (channels != 48 || groups == 2)) continue;
        const EpilogueKind kind = epilogue_kind(static_cast<int>(random.below(kEpilogueKinds)));
        check_case(make_case(s, kind, random), random);
      }
    }
  }
}

void test_epilogues(bool small, Random& random) {
  for (int kind = 0; kind < kEpilogueKinds; ++kind) {
    for (const int64_t out_c : {16, 64, 70, 128, 137}) {
      if (small && out_c != 70) continue;
      Conv2dShape s = random_geometry(64, out_c, 3, 3, random);
      s.batch = 1;
      check_case(make_case(s, epilogue_kind(kind), random), random);
    }
  }
}

// Slopes of every sort, alone in their blocks and mixed, on values of every sort: both zeros, infinities, no
// numbers. Kernels may take short cuts for some of them.
void test_slopes(Random& random) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float tiny = std::numeric_limits<float>::denorm_min();
  const std::initializer_list<std::initializer_list<float>> sorts = {
      {0.25F, 1.0F, tiny}, {-0.25F, 0.5F, -3e38F}, {1.5F, 0.5F}, {0.0F, 0.5F},
      {-0.0F, -0.5F},      {-infinity, 0.5F},      {infinity},   {std::nanf(""), 0.5F}};
  const std::initializer_list<float> scales = {1.0F, -1.0F, 0.0F, -0.0F, infinity, 3e38F, -tiny};
  for (const std::initializer_list<float>& slopes : sorts) {
    for (const float zero : {0.0F, -0.0F}) {
      for (const bool clipped : {false, true}) {
        EpilogueKind kind = epilogue_kind(20);
        kind.residual = random.coin();
        kind.clip = clipped;
        ConvCase c = make_case({1, 5, 4, 64, 70, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, kind, random);
        for (size_t o = 0; o < c.slope.size(); ++o) {
          c.slope[o] = slopes.begin()[random.below(static_cast<int64_t>(slopes.size()))];
          c.scale[o] = scales.begin()[random.below(static_cast<int64_t>(scales.size()))];
          c.bias[o] = random.coin() ? zero : random.symmetric();
        }
        for (float& r : c.residual) r = random.coin() ? -0.0F : r;
        if (clipped) (random.coin() ? c.clip_min : c.clip_max) = zero;
        check_case(c, random);
      }
    }
  }
}

// The shapes that networks have, big enough for several parallel items.
void test_common_shapes(bool small, Random& random) {
  for (const int64_t channels : {64, 128, 256, 512}) {
    if (small && channels != 64) continue;
    const int64_t side = small ? 7 : (channels == 64 ? 28 : 3584 / channels / 2);
    const Conv2dShape s{1, side, side, channels, channels, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    check_case(make_case(s, epilogue_kind(17), random), random);
    const Conv2dShape strided{2, side, side, channels, 64, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1};
    if (!small) check_case(make_case(strided, epilogue_kind(8), random), random);
  }
  // Images so large that not all of them are prepared at once.
  if (!small)
    check_case(make_case({3, 50, 70, 130, 5, 1, 3, 1, 1, 0, 1, 0, 1, 1, 1, 1}, epilogue_kind(17), random),
               random);
  const Conv2dShape gemm{small ? 5 : 37, 1, 1, 300, 90, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1};
  check_case(make_case(gemm, epilogue_kind(0), random), random);
}

// All bits different, or all equal, in sums longer than any network's: counters of 8 and of 16 bits must not
// wrap.
void test_long_sums(bool small, Random& random) {
  // Two outputs: the first lacks a column of taps, the second has all.
  const auto two_outputs = [](int64_t side, int64_t in_c, int64_t out_c, int64_t group) {
    return Conv2dShape{1, side, side, in_c, out_c, side, side, 1, 1, 0, 1, 0, 0, 1, 1, group};
  };
  // More than 65535 terms, in one group and in two.
  std::vector<Conv2dShape> shapes = {two_outputs(5, small ? 2700 : 4608, 3, 1), two_outputs(65, 32, 34, 2)};
  if (!small) shapes.push_back(two_outputs(5, 4608, 70, 1));
  for (const bool different : {true, false}) {
    for (const Conv2dShape& shape : shapes) {
      const int64_t channels = shape.in_c / shape.group;
      const int64_t taps = shape.kernel_h * shape.kernel_w;
      ConvCase c = make_case(shape, epilogue_kind(16), random);
      for (float& v : c.scale) v = 1.0F;
      for (float& v : c.bias) v = 0.0F;
      const auto set_all = [](std::vector<uint64_t>* tensor, int64_t row_channels, bool ones) {
        const int64_t words = words_for(row_channels);
        const uint64_t last =
            row_channels % 64 == 0 ? ~uint64_t{0} : (uint64_t{1} << (row_channels % 64)) - 1;
        for (size_t i = 0; i < tensor->size(); ++i) {
          const uint64_t full = static_cast<int64_t>(i) % words == words - 1 ? last : ~uint64_t{0};
          (*tensor)[i] = ones ? full : 0;
        }
      };
      set_all(&c.input, shape.in_c, true);
      set_all(&c.weights, channels, !different);
      check_case(c, random);
      const float longest = run_case(c, Isa::kReference, Parallel{}).y[shape.out_c];
      CHECK(longest == static_cast<float>(different ? -taps * channels : taps * channels),
            "the longest sum is +-K");
    }
  }
}

// An output that sees no tap has dot = 0 and K = 0, whatever the weights.
void test_pixels_without_taps(Random& random) {
  ConvCase c = make_case({2, 2, 2, 40, 20, 1, 1, 1, 1, 3, 2, 1, 4, 1, 1, 1}, epilogue_kind(16), random);
  for (float& v : c.scale) v = 3.0F;
  for (float& v : c.bias) v = -0.5F;
  check_case(c, random);
  for (const Isa isa : kernels_to_test()) {
    const ConvResult result = run_case(c, isa, Parallel{});
    CHECK(result.y[0] == -0.5F,
          std::string(isa_name(isa)) + ": the corner sees no tap and must equal the bias");
  }
  // Dilation so wide that the taps straddle a one-pixel image.
  check_case(make_case({1, 1, 1, 64, 64, 2, 2, 1, 1, 2, 2, 2, 2, 2, 2, 1}, epilogue_kind(20), random),
             random);
  check_case(make_case({1, 1, 3, 7, 9, 3, 3, 1, 1, 6, 5, 6, 7, 3, 3, 1}, epilogue_kind(20), random), random);
  // Nothing to do at all.
  check_case(make_case({0, 4, 4, 64, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, epilogue_kind(16), random),
             random);
}

// y may be the residual's own buffer.
void test_in_place_residual(Random& random) {
  const ConvCase c = make_case({1, 6, 5, 64, 70, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, epilogue_kind(17), random);
  const ConvResult expected = run_case(c, Isa::kReference, Parallel{});
  for (const Isa isa : kernels_to_test()) {
    std::vector<float> y = c.residual;
    Guarded<uint64_t> bits(expected.bits.size());
    Epilogue e;
    e.scale = c.scale.data();
    e.bias = c.bias.data();
    e.residual = y.data();
    e.threshold = c.threshold.data();
    e.y = y.data();
    e.bits = bits.data();
    binary_conv2d(pack_weights(isa, c.weights.data(), c.shape), c.input.data(), c.shape, e, Parallel{});
    bool same = true;
    for (size_t i = 0; i < y.size(); ++i)
      same = same && same_float(y[i], expected.y[static_cast<int64_t>(i)]);
    CHECK(same, std::string(isa_name(isa)) + ": y in the residual's buffer");
  }
}

// The longest sums of plain C++, where twice a count is beyond 31 bits: one run of input and weights, read
// again and again as if it were as many taps, since so many would not fit into the memory.
void test_longest_sum() {
  constexpr int64_t kUnits = 1024, kRunBits = kUnits * 32;
  constexpr int64_t kRuns = (int64_t{1} << 30) / kRunBits + 1;
  const std::vector<uint32_t> input(kUnits, ~uint32_t{0}), weights(kUnits * kBlockChannels);
  BlockEpilogue epilogue{};
  float y = 0.0F;
  epilogue.scale[0] = 1.0F;
  epilogue.clip_min = -HUGE_VALF;
  epilogue.clip_max = HUGE_VALF;
  epilogue.channels = 1;
  epilogue.y = &y;
  epilogue.pixel_floats = 1;
  ConvTile tile{};
  tile.input[0] = reinterpret_cast<const uint8_t*>(input.data());
  tile.pixels = 1;
  tile.dot_max = static_cast<int32_t>(kRuns * kRunBits);
  tile.rows = 1;
  tile.taps = kRuns;
  tile.units = kUnits;
  tile.weights = reinterpret_cast<const uint8_t*>(weights.data());
  tile.epilogue = &epilogue;
  kPortableKernels.conv_tile(tile);
  CHECK(y == -static_cast<float>(kRuns * kRunBits), "the longest sum is -K");
}

}  // namespace

}  // namespace test
}  // namespace dirnet

int main(int argc, char** argv) {
  using namespace dirnet::test;
  const bool small = small_suite(argc, argv);
  Random random(seed());
  for (const dirnet::Isa isa : kernels_to_test()) std::printf("testing %s\n", dirnet::isa_name(isa));
  test_ragged_shapes(small, random);
  test_groups(small, random);
  test_narrow_groups(small, random);
  test_large_kernels(small, random);
  test_epilogues(small, random);
  test_slopes(random);
  test_common_shapes(small, random);
  test_long_sums(small, random);
  test_pixels_without_taps(random);
  test_in_place_residual(random);
  if (!small) test_longest_sum();
  return finish("conv2d");
}
