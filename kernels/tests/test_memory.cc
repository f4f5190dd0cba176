// Where memory is short nothing throws: an exception would end the process, in a thread or in a caller of the
// C interface. Every allocation with new is refused here after the first few.
#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>
#include <vector>

#include "check.h"
#include "conv_case.h"
#include "dirnet/dirnet_c.h"
#include "dirnet/stem.h"
#include "wanted_isa.h"

namespace {

constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
std::atomic<int64_t> allowed{kAny};

}  // namespace

void* operator new(size_t bytes) {
  void* memory = allowed-- > 0 ? std::malloc(bytes > 0 ? bytes : 1) : nullptr;
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace dirnet {
namespace test {

namespace {

// Whether `job` returns true, without throwing, when only `allocations` succeed.
template <typename Job>
bool works_with(int64_t allocations, const Job& job) {
  allowed = allocations;
  bool done = false;
  try {
    done = job();
  } catch (const std::exception&) {
  }
  allowed = kAny;
  return done;
}

// kernel and stride, then a pooling of 3 and 2: one taken in Winograd's form, one tap by tap.
void test_stem(int64_t kernel, int64_t stride, Random& random) {
  const StemShape s{1, 20, 20, 3, 20, kernel, kernel, stride, stride, 1, 1, 1, 1, 3, 3, 2, 2, 1, 1, 1, 1};
  const size_t weight_count = static_cast<size_t>(s.out_c * s.in_c * kernel * kernel);
  const std::vector<int8_t> bytes(weight_count, 1);
  const std::vector<float> weights(weight_count, 0.5F), ones(static_cast<size_t>(s.out_c), 1.0F);
  std::vector<float> x(static_cast<size_t>(s.in_c * s.in_h * s.in_w));
  for (float& value : x) value = random.symmetric();
  std::vector<float> y(static_cast<size_t>(s.out_h() * s.out_w() * s.out_c));
  StemOutputs outputs;
  outputs.slope = ones.data();
  outputs.y = y.data();
  for (const Isa isa : isas_to_test()) {
    const PackedStem floats = pack_stem(isa, weights.data(), ones.data(), s);
    const PackedStem integers = pack_int8_stem(isa, bytes.data(), ones.data(), ones.data(), {0.01F, 128}, s);
    for (const PackedStem* stem : {&floats, &integers}) {
      CHECK(works_with(0, [&] { return stem_conv2d(*stem, x.data(), s, outputs, Parallel{}); }),
            std::string(isa_name(isa)) + ": a stem");
    }
  }
}

// Threads that cannot be had leave their work to those that can.
void test_threads() {
  const int64_t pixels = 64 * 1024;
  const std::vector<float> x(static_cast<size_t>(pixels * 4), 1.0F), threshold(4, 0.0F);
  for (int64_t allocations = 0; allocations < 12; ++allocations) {
    std::vector<uint64_t> bits(static_cast<size_t>(pixels));
    const auto binarize = [&] {
      return dirnet_binarize(static_cast<int>(Isa::kPortable), x.data(), pixels, 4, threshold.data(),
                             bits.data(), 5) == DIRNET_OK;
    };
    CHECK(works_with(allocations, binarize), "threads with " + std::to_string(allocations) + " allocations");
    CHECK(bits == std::vector<uint64_t>(bits.size(), 0xF), "all of the work is done");
  }
}

void test_errors() {
  set_wanted("an instruction set that nobody has");
  char text[100] = "";
  CHECK(works_with(0, [] { return dirnet_chosen_isa() == -1; }), "an ISA without memory for the error");
  CHECK(works_with(0, [&] { return dirnet_chosen_isa_error(text, sizeof(text)) > 0; }), "its error");
  CHECK(std::string(text).find("DIRNET_ISA") == 0, "its text");
  set_wanted(nullptr);
}

}  // namespace

}  // namespace test
}  // namespace dirnet

int main() {
  using namespace dirnet::test;
  Random random(seed());
  test_stem(7, 2, random);
  test_stem(3, 1, random);
  test_threads();
  test_errors();
  return finish("memory");
}
