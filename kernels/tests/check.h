// The little that the tests need of a test framework.
#ifndef DIRNET_TESTS_CHECK_H_
#define DIRNET_TESTS_CHECK_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace dirnet {
namespace test {

inline int failures = 0;
inline int64_t checks = 0;

inline bool check(bool ok, const char* file, int line, const std::string& what) {
  ++checks;
  if (ok) return true;
  ++failures;
  if (failures <= 20) std::printf("%s:%d: FAILED: %s\n", file, line, what.c_str());
  return false;
}

#define CHECK(condition, what) ::dirnet::test::check((condition), __FILE__, __LINE__, (what))

// The seed of this run; DIRNET_TEST_SEED repeats an earlier one.
inline uint64_t seed() {
  static const uint64_t value = [] {
    const char* text = std::getenv("DIRNET_TEST_SEED");
    const uint64_t chosen = text != nullptr ? std::strtoull(text, nullptr, 10) : 20240607;
    std::printf("DIRNET_TEST_SEED=%llu\n", static_cast<unsigned long long>(chosen));
    return chosen;
  }();
  return value;
}

// --small: few and small cases, for emulated CPUs.
inline bool small_suite(int argc, char** argv) { return argc > 1 && std::strcmp(argv[1], "--small") == 0; }

inline int finish(const char* name) {
  std::printf("%s: %lld checks, %d failed\n", name, static_cast<long long>(checks), failures);
  return failures == 0 ? 0 : 1;
}

// SplitMix64: the same numbers on every platform.
class Random {
 public:
  explicit Random(uint64_t state) : state_(state) {}
  uint64_t bits() {
    state_ += 0x9E3779B97F4A7C15ULL;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
  bool coin() { return below(2) == 1; }
  // In [-1, 1), on a grid of 2^-20.
  float symmetric() { return static_cast<float>(below(1 << 21) - (1 << 20)) / static_cast<float>(1 << 20); }

 private:
  uint64_t state_;
};

// Equal to the bit, any NaN equal to any other.
inline bool same_float(float a, float b) {
  if (a != a || b != b) return a != a && b != b;
  uint32_t x, y;
  std::memcpy(&x, &a, sizeof(x));
  std::memcpy(&y, &b, sizeof(y));
  return x == y;
}

}  // namespace test
}  // namespace dirnet

#endif  // DIRNET_TESTS_CHECK_H_
