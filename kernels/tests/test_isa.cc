// Which ISA runs, DIRNET_ISA, and the C interface.
#include <vector>

#include "check.h"
#include "dirnet/dirnet.h"
#include "dirnet/dirnet_c.h"
#include "dirnet/training.h"
#include "wanted_isa.h"

namespace dirnet {
namespace test {

namespace {

bool usable(Isa isa) { return isa_built(isa) && isa_supported(isa); }

void test_choice() {
  Isa isa = Isa::kReference;
  std::string error;
  for (const char* unset : {static_cast<const char*>(nullptr), ""}) {
    set_wanted(unset);
    CHECK(choose_isa(&isa, &error) && usable(isa) && isa != Isa::kReference, "without DIRNET_ISA");
    for (const Isa better : {Isa::kAvx512, Isa::kAvx2, Isa::kNeon}) {
      if (isa == Isa::kPortable) CHECK(!usable(better), "portable only where there is nothing better");
    }
    if (usable(Isa::kAvx512)) CHECK(isa == Isa::kAvx512, "AVX-512 before AVX2");
  }
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa wanted = static_cast<Isa>(i);
    set_wanted(isa_name(wanted));
    error.clear();
    const bool chosen = choose_isa(&isa, &error);
    CHECK(chosen == usable(wanted) && (!chosen || isa == wanted),
          std::string("DIRNET_ISA=") + isa_name(wanted));
    CHECK(chosen == error.empty(), "an error sentence exactly when the choice fails");
    CHECK(chosen || error.find(isa_name(wanted)) != std::string::npos, "the error names the ISA");
    CHECK(dirnet_chosen_isa() == (chosen ? i : -1), "C interface agrees");
  }
  for (const char* unknown : {"sse9", "AVX2", "avx2 ", "reference,avx2"}) {
    set_wanted(unknown);
    CHECK(!choose_isa(&isa, &error) && error.find(unknown) != std::string::npos,
          std::string("unknown: ") + unknown);
    char text[16];
    CHECK(dirnet_chosen_isa_error(text, sizeof(text)) == static_cast<int64_t>(error.size()),
          "length of the error");
    CHECK(error.compare(0, 15, text) == 0, "the error is cut to fit");
  }
  set_wanted(nullptr);
  CHECK(dirnet_chosen_isa_error(nullptr, 0) == 0, "no error");
}

void test_c_interface() {
  CHECK(dirnet_isa_name(-1) == nullptr && dirnet_isa_name(dirnet_isa_count()) == nullptr,
        "names of unknown numbers");
  CHECK(dirnet_isa_built(-1) == 0 && dirnet_isa_supported(99) == 0, "unknown numbers are not built");
  const uint64_t input[4] = {0x1, 0x0, 0x1, 0x1};
  const uint64_t weights[2] = {0x1, 0x0};
  const float ones[2] = {1.0F, 1.0F};
  const float zeros[2] = {0.0F, 0.0F};
  float y[8];
  uint64_t bits[4];
  const int64_t shape[16] = {1, 2, 2, 1, 2, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1};
  for (int isa = 0; isa < dirnet_isa_count(); ++isa) {
    const auto run = [&](const int64_t* s, float* out, int threads) {
      return dirnet_binary_conv2d(isa, input, weights, s, ones, zeros, nullptr, nullptr, -100.0F, 100.0F,
                                  zeros, out, bits, threads);
    };
    if (!usable(static_cast<Isa>(isa))) {
      CHECK(run(shape, y, 1) == DIRNET_ISA_UNAVAILABLE, "an ISA that is not there");
      continue;
    }
    for (const int threads : {1, 3}) {
      CHECK(run(shape, y, threads) == DIRNET_OK, "a convolution");
      for (int i = 0; i < 8; ++i)
        CHECK(y[i] == ((input[i / 2] == weights[i % 2]) ? 1.0F : -1.0F), "its value");
      for (int i = 0; i < 4; ++i) CHECK(bits[i] == (input[i] == 1 ? 0x1U : 0x2U), "its bits");
    }
    for (int field = 0; field < 16; ++field) {
      int64_t wrong[16];
      for (int i = 0; i < 16; ++i) wrong[i] = shape[i];
      wrong[field] = -1;
      CHECK(run(wrong, y, 1) == DIRNET_BAD_ARGUMENT, "a negative field of the shape");
    }
    const float x[3] = {-0.0F, -1.0F, 2.0F};
    const float thresholds[3] = {0.0F, 0.0F, 2.0F};
    CHECK(dirnet_binarize(isa, x, 1, 3, thresholds, bits, 2) == DIRNET_OK && bits[0] == 0x5, "binarize");
    CHECK(dirnet_binarize(isa, x, 1, 0, thresholds, bits, 1) == DIRNET_BAD_ARGUMENT, "no channels");
    CHECK(dirnet_binarize(isa, nullptr, 1, 3, thresholds, bits, 1) == DIRNET_BAD_ARGUMENT, "no input");
  }
  const int64_t pool[14] = {1, 2, 2, 1, 2, 2, 2, 2, 0, 0, 1, 1, 1, 1};
  CHECK(dirnet_binary_max_pool2d(input, pool, bits, 1) == DIRNET_OK && bits[0] == 0x1, "max pool");
  CHECK(dirnet_binary_max_pool2d(nullptr, pool, bits, 1) == DIRNET_BAD_ARGUMENT, "max pool without input");
}

// Tensors without elements come without an address: PyTorch's do.
void test_empty_tensors() {
  int64_t shape[16] = {0, 2, 2, 3, 2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  // An image that the kernel does not fit into.
  const int64_t smaller[16] = {1, 2, 2, 3, 2, 3, 3, 1, 1, 0, 0, 0, 0, 1, 1, 1};
  const uint64_t input[4] = {};
  const uint64_t weight_words[18] = {};
  const std::vector<float> weights(2 * 9 * 3, 1.0F);
  const float vector[3] = {};
  for (int isa = 0; isa < dirnet_isa_count(); ++isa) {
    if (!usable(static_cast<Isa>(isa))) continue;
    const std::string name = isa_name(static_cast<Isa>(isa));
    const auto conv = [&](const int64_t* s, const uint64_t* from) {
      return dirnet_binary_conv2d(isa, from, weight_words, s, vector, vector, nullptr, nullptr, -1.0F, 1.0F,
                                  vector, nullptr, nullptr, 1);
    };
    CHECK(dirnet_binarize(isa, nullptr, 0, 3, vector, nullptr, 1) == DIRNET_OK, name + ": no pixels");
    CHECK(conv(shape, nullptr) == DIRNET_OK, name + ": no images");
    CHECK(conv(smaller, input) == DIRNET_OK, name + ": no outputs");
    CHECK(conv(smaller, nullptr) == DIRNET_BAD_ARGUMENT, name + ": an image without an address");
    if (dirnet_training_built(isa) == 0) continue;
    const auto forward = [&](const float* w) {
      return dirnet_sign_conv2d(isa, 0, nullptr, vector, w, shape, 0, nullptr, 1, nullptr);
    };
    const auto backward = [&](float* to) {
      return dirnet_sign_conv2d_backward(isa, 0, nullptr, vector, weights.data(), shape, 0, nullptr, nullptr,
                                         to, 1, nullptr);
    };
    std::vector<float> gradient(weights.size(), 7.0F);
    CHECK(forward(weights.data()) == DIRNET_OK, name + ": no images to train on");
    CHECK(forward(nullptr) == DIRNET_BAD_ARGUMENT, name + ": weights are asked for all the same");
    CHECK(backward(gradient.data()) == DIRNET_OK && gradient == std::vector<float>(gradient.size(), 0.0F),
          name + ": the weights' gradient is 0");
    CHECK(backward(nullptr) == DIRNET_BAD_ARGUMENT, name + ": that gradient is asked for, too");
    shape[0] = 1;
    CHECK(forward(weights.data()) == DIRNET_BAD_ARGUMENT && backward(gradient.data()) == DIRNET_BAD_ARGUMENT,
          name + ": an image without an address");
    shape[0] = 0;
  }
  const int64_t pool[14] = {0, 2, 2, 1, 2, 2, 2, 2, 0, 0, 1, 1, 1, 1};
  CHECK(dirnet_binary_max_pool2d(nullptr, pool, nullptr, 1) == DIRNET_OK, "max pool of no images");
}

// Dot products are counted in 32 bits, and so are the terms of a gradient.
void test_shapes_too_large() {
  constexpr int64_t kLargest = INT32_MAX;
  const uint64_t words[1] = {};
  const float vector[1] = {};
  float gradient[1];
  const int isa = static_cast<int>(Isa::kPortable);
  // Without images nothing else could refuse them.
  const int64_t shapes[4][16] = {
      {0, 1, 1, 64, 1, 5793, 5793, 1, 1, 0, 0, 0, 0, 1, 1, 1},
      {0, 1, 1, 1, 1, kLargest, kLargest, 1, 1, 0, 0, 0, 0, 1, 1, 1},
      {0, 1, 1, 1, 1, 1, 1, 1, 1, kLargest + 1, 0, 0, 0, 1, 1, 1},
      {0, 1, 1, 1, 1, 1, INT64_MAX, 1, 1, 0, 0, 0, 0, 1, 1, 1},
  };
  for (const auto& shape : shapes) {
    CHECK(dirnet_binary_conv2d(isa, words, words, shape, vector, vector, nullptr, nullptr, -1.0F, 1.0F,
                               nullptr, gradient, nullptr, 1) == DIRNET_BAD_ARGUMENT,
          "a dot product beyond 32 bits");
  }
  if (dirnet_training_built(isa) == 0) return;
  const int64_t padded[16] = {0, 1, 1, 1, 1, 1, 1, 1, 1, kLargest, kLargest, kLargest, kLargest, 1, 1, 1};
  CHECK(dirnet_sign_conv2d_backward(isa, 0, nullptr, vector, vector, padded, 0, nullptr, nullptr, gradient, 1,
                                    nullptr) == DIRNET_BAD_ARGUMENT,
        "more pixels than can be counted");
  // Every number is below 2^31, and the bytes of the padded image are beyond 64 bits.
  constexpr int64_t kHalf = int64_t{1} << 30;
  const int64_t apart[16] = {4,     1,     1,     1,         1, 2,        2,     kHalf,
                             kHalf, kHalf, kHalf, kHalf - 1, 0, kLargest, kHalf, 1};
  const float four[4] = {};
  float signs[4];
  CHECK(dirnet_sign_conv2d_backward(isa, 0, four, vector, four, apart, 0, four, signs, gradient, 1,
                                    nullptr) == DIRNET_BAD_ARGUMENT,
        "more bytes than can be counted");
  uint64_t bits[1];
  CHECK(dirnet_binarize(isa, nullptr, 0, kLargest + 1, vector, bits, 1) == DIRNET_BAD_ARGUMENT,
        "more channels than can be counted");
  dirnet_tail tail{};
  tail.pixels = 1;
  tail.channels = INT64_MAX;
  tail.x = tail.gain = tail.offset = vector;
  CHECK(dirnet_norm_tail(isa, &tail, signs, signs, signs, 1, nullptr) == DIRNET_BAD_ARGUMENT,
        "more channels of a norm than can be counted");
}

}  // namespace

}  // namespace test
}  // namespace dirnet

int main() {
  using namespace dirnet::test;
  test_choice();
  test_c_interface();
  test_empty_tensors();
  test_shapes_too_large();
  return finish("isa");
}
