// Binarize and max pooling: every ISA against conditions written out here.
#include <cmath>
#include <limits>

#include "conv_case.h"
#include "threads.h"

namespace dirnet {
namespace test {

namespace {

std::vector<Isa> all_to_test() {
  std::vector<Isa> isas = kernels_to_test();
  isas.push_back(Isa::kReference);
  return isas;
}

const std::vector<float>& interesting_values() {
  using Limits = std::numeric_limits<float>;
  static const std::vector<float> values = {0.0F,
                                            -0.0F,
                                            1.0F,
                                            -1.0F,
                                            Limits::infinity(),
                                            -Limits::infinity(),
                                            std::nanf(""),
                                            -std::nanf(""),
                                            Limits::denorm_min(),
                                            -Limits::denorm_min(),
                                            Limits::min(),
                                            -Limits::min(),
                                            Limits::max(),
                                            Limits::lowest(),
                                            0.5F,
                                            -0.5F};
  return values;
}

// The convention, decided on the bit patterns of the floats and not by a float comparison.
bool at_least(float x, float threshold) {
  const auto ordered = [](float f) {
    uint32_t u;
    std::memcpy(&u, &f, sizeof(u));
    const int64_t magnitude = u & 0x7FFFFFFFU;
    return (u >> 31) != 0 ? -magnitude : magnitude;  // both zeros are 0
  };
  const auto is_nan = [](float f) {
    uint32_t u;
    std::memcpy(&u, &f, sizeof(u));
    return (u & 0x7FFFFFFFU) > 0x7F800000U;
  };
  return !is_nan(x) && !is_nan(threshold) && ordered(x) >= ordered(threshold);
}

void check_binarize(int64_t pixels, const std::vector<float>& x, const std::vector<float>& threshold,
                    Random& random) {
  const int64_t channels = static_cast<int64_t>(threshold.size());
  const int64_t words = words_for(channels);
  for (const Isa isa : all_to_test()) {
    for (const int threads : {0, 3}) {
      Guarded<uint64_t> bits(pixels * words);
      ShuffledThreads shuffled{threads, random.bits()};
      binarize(isa, x.data(), pixels, channels, threshold.data(), bits.data(),
               threads > 0 ? shuffled.parallel() : Parallel{});
      bool same = true;
      for (int64_t p = 0; p < pixels; ++p) {
        for (int64_t c = 0; c < words * 64; ++c) {
          const bool bit = (bits[p * words + c / 64] >> (c % 64) & 1) != 0;
          const bool expected = c < channels && at_least(x[static_cast<size_t>(p * channels + c)],
                                                         threshold[static_cast<size_t>(c)]);
          same = same && bit == expected;
        }
      }
      CHECK(same && bits.intact(), std::string(isa_name(isa)) + ": binarize " + std::to_string(pixels) +
                                       " x " + std::to_string(channels));
    }
  }
}

void test_every_pair_of_interesting_values(Random& random) {
  const std::vector<float>& values = interesting_values();
  const int64_t n = static_cast<int64_t>(values.size());
  for (int64_t shift = 0; shift < 8; ++shift) {  // at every lane of a vector, in the body and in the tail
    std::vector<float> x(static_cast<size_t>(shift), 1.0F);
    std::vector<float> threshold(static_cast<size_t>(shift), 0.0F);
    for (int64_t i = 0; i < n * n; ++i) {
      x.push_back(values[static_cast<size_t>(i % n)]);
      threshold.push_back(values[static_cast<size_t>(i / n)]);
    }
    check_binarize(1, x, threshold, random);
  }
}

void test_channel_counts(bool small, Random& random) {
  const std::vector<float>& values = interesting_values();
  for (const int64_t channels :
       {1, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 130, 256, 300}) {
    for (const int64_t pixels : {0, 1, 5, small ? 9 : 2000}) {
      std::vector<float> x(static_cast<size_t>(pixels * channels));
      std::vector<float> threshold(static_cast<size_t>(channels));
      for (float& v : x)
        v = random.below(8) == 0 ? values[static_cast<size_t>(random.below(16))] : random.symmetric();
      for (float& v : threshold) v = random.coin() ? 0.0F : random.symmetric();
      check_binarize(pixels, x, threshold, random);
    }
  }
}

void test_max_pool(Random& random) {
  for (int repeat = 0; repeat < 200; ++repeat) {
    Pool2dShape s{};
    s.batch = 1 + random.below(2);
    s.in_h = 1 + random.below(8);
    s.in_w = 1 + random.below(8);
    s.channels = 1 + random.below(140);
    s.kernel_h = 1 + random.below(3);
    s.kernel_w = 1 + random.below(3);
    s.stride_h = 1 + random.below(3);
    s.stride_w = 1 + random.below(3);
    s.pad_top = random.below(3);
    s.pad_left = random.below(3);
    s.dilation_h = 1 + random.below(2);
    s.dilation_w = 1 + random.below(2);
    s.out_h = 1 + random.below(6);
    s.out_w = 1 + random.below(6);
    const int64_t words = words_for(s.channels);
    std::vector<uint64_t> input(static_cast<size_t>(s.batch * s.in_h * s.in_w * words));
    for (size_t i = 0; i < input.size(); ++i) {
      const int64_t left = s.channels - static_cast<int64_t>(i) % words * 64;
      input[i] = random.bits() & random.bits() & (left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1);
    }
    Guarded<uint64_t> output(s.batch * s.out_h * s.out_w * words);
    ShuffledThreads threads{2, random.bits()};
    binary_max_pool2d(input.data(), s, output.data(), random.coin() ? threads.parallel() : Parallel{});
    bool same = true;
    for (int64_t i = 0; i < output.size(); ++i) {
      const int64_t n = i / words / s.out_w / s.out_h;
      uint64_t expected = 0;
      for (int64_t tap = 0; tap < s.kernel_h * s.kernel_w; ++tap) {
        const int64_t y =
            i / words / s.out_w % s.out_h * s.stride_h - s.pad_top + tap / s.kernel_w * s.dilation_h;
        const int64_t x = i / words % s.out_w * s.stride_w - s.pad_left + tap % s.kernel_w * s.dilation_w;
        if (y < 0 || x < 0 || y >= s.in_h || x >= s.in_w) continue;
        expected |= input[static_cast<size_t>(((n * s.in_h + y) * s.in_w + x) * words + i % words)];
      }
      same = same && output[i] == expected;
    }
    CHECK(same && output.intact(), "max pool, repeat " + std::to_string(repeat));
  }
}

// Windows that reach further than anything could count to: only their taps inside the image cost time.
void test_enormous_max_pool() {
  constexpr int64_t kLargest = INT32_MAX;
  const uint64_t input[4] = {0x1, 0x2, 0x4, 0x8};
  for (const int64_t dilation : {int64_t{1}, kLargest}) {
    // The window's last tap is the image's last pixel, or with the dilation its first one and no other.
    const int64_t pad = dilation == 1 ? kLargest - 2 : 0;
    const Pool2dShape s{1, 2, 2, 4, kLargest, kLargest, 1, 1, pad, pad, dilation, dilation, 2, 2};
    Guarded<uint64_t> output(4);
    binary_max_pool2d(input, s, output.data(), Parallel{});
    for (int64_t i = 0; i < 4; ++i) {
      const uint64_t expected = dilation == 1 ? 0xF : input[i];
      CHECK(output[i] == expected && output.intact(), "enormous window, pixel " + std::to_string(i));
    }
  }
}

}  // namespace

}  // namespace test
}  // namespace dirnet

int main(int argc, char** argv) {
  using namespace dirnet::test;
  const bool small = small_suite(argc, argv);
  Random random(seed());
  test_every_pair_of_interesting_values(random);
  test_channel_counts(small, random);
  test_max_pool(random);
  test_enormous_max_pool();
  return finish("binarize");
}
