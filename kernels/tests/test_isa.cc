// Which ISA runs, DIRNET_ISA, and the C interface.
#include <vector>

#include "check.h"
#include "dirnet/dirnet.h"
#include "dirnet/dirnet_c.h"

namespace dirnet {
namespace test {

namespace {

void set_wanted(const char* value) {
#if defined(_WIN32)
  _putenv_s("DIRNET_ISA", value != nullptr ? value : "");
#else
  if (value != nullptr) {
    setenv("DIRNET_ISA", value, 1);
  } else {
    unsetenv("DIRNET_ISA");
  }
#endif
}

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

}  // namespace

}  // namespace test
}  // namespace dirnet

int main() {
  using namespace dirnet::test;
  test_choice();
  test_c_interface();
  return finish("isa");
}
