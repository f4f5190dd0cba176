#ifndef DIRNET_TESTS_GUARDED_H_
#define DIRNET_TESTS_GUARDED_H_

#include <cstdint>
#include <cstring>
#include <vector>

namespace dirnet {
namespace test {

// A buffer between two zones of a known pattern, itself filled with it: what must be written shows, and so
// does what must not be. Its size on the heap is exact, so that address checkers see reads past the end.
template <typename T>
class Guarded {
 public:
  explicit Guarded(int64_t size) : memory_(static_cast<size_t>(size + 2 * kZone)), size_(size) {
    std::memset(memory_.data(), kPattern, memory_.size() * sizeof(T));
  }
  T* data() { return memory_.data() + kZone; }
  const T* data() const { return memory_.data() + kZone; }
  int64_t size() const { return size_; }
  const T& operator[](int64_t i) const { return data()[i]; }

  bool intact() const {
    const unsigned char* front = reinterpret_cast<const unsigned char*>(memory_.data());
    const unsigned char* back = reinterpret_cast<const unsigned char*>(data() + size_);
    for (size_t i = 0; i < kZone * sizeof(T); ++i) {
      if (front[i] != kPattern || back[i] != kPattern) return false;
    }
    return true;
  }

 private:
  static constexpr int64_t kZone = 64;
  static constexpr unsigned char kPattern = 0xA5;
  std::vector<T> memory_;
  int64_t size_;
};

}  // namespace test
}  // namespace dirnet

#endif  // DIRNET_TESTS_GUARDED_H_
