#ifndef DIRNET_SRC_DRIVER_PREFETCH_H_
#define DIRNET_SRC_DRIVER_PREFETCH_H_

#include <cstdint>

namespace dirnet {

// Fetches a stretch of memory into the second cache in equal shares, one with each of a number of steps. Only
// on x86-64, where it was measured.
class Prefetch {
 public:
  Prefetch() = default;
  Prefetch(const uint8_t* begin, int64_t bytes, int64_t steps)
      : begin_(begin), bytes_(bytes), share_((bytes / kLine / (steps > 0 ? steps : 1) + 1) * kLine) {}

  void step(int64_t index) const {
#if defined(__GNUC__) && defined(__x86_64__)
    const int64_t first = index * share_;
    const int64_t past = first + share_ < bytes_ ? first + share_ : bytes_;
    for (int64_t at = first; at < past; at += kLine) __builtin_prefetch(begin_ + at, 0, 2);
#else
    static_cast<void>(index);
#endif
  }

 private:
  static constexpr int64_t kLine = 64;
  const uint8_t* begin_ = nullptr;
  int64_t bytes_ = 0;
  int64_t share_ = 0;
};

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_PREFETCH_H_
