#include "driver/align_groups.h"

#include <cstring>

#include "driver/layout.h"
#include "driver/parallel.h"

namespace dirnet {

namespace {

constexpr int64_t kBytesPerItem = 32 * 1024;

// `count` <= 64 bits that start at bit `first`; reads no word that holds none of them.
uint64_t extract_bits(const uint64_t* words, int64_t first, int64_t count) {
  const int64_t shift = first % 64;
  uint64_t value = words[first / 64] >> shift;
  if (shift + count > 64) value |= words[first / 64 + 1] << (64 - shift);
  return count == 64 ? value : value & ((uint64_t{1} << count) - 1);
}

// Writes the first `count` bytes of a word, 8 at most, and returns where they end.
uint8_t* put_bytes(uint64_t value, int64_t count, uint8_t* to) {
  if (count >= 8) {
    std::memcpy(to, &value, 8);
    return to + 8;
  }
  if (count == 4) {
    const uint32_t half = static_cast<uint32_t>(value);
    std::memcpy(to, &half, 4);
    return to + 4;
  }
  for (int64_t byte = 0; byte < count; ++byte) *to++ = static_cast<uint8_t>(value >> (byte * 8));
  return to;
}

}  // namespace

GroupAlignment::GroupAlignment(const Conv2dShape& s, int64_t unit_bytes)
    : pixels_(s.batch * s.in_h * s.in_w),
      channels_(s.in_c),
      groups_(s.group),
      group_bytes_(ceil_div(s.in_c / s.group, 8 * unit_bytes) * unit_bytes) {}

size_t GroupAlignment::bytes() const { return static_cast<size_t>(pixels_ * groups_ * group_bytes_); }

void GroupAlignment::run(const uint64_t* input, uint8_t* output, const Parallel& parallel) const {
  const int64_t group_channels = channels_ / groups_;
  const int64_t chunk = ceil_div(kBytesPerItem, groups_ * group_bytes_);
  for_each_chunk(parallel, pixels_, chunk, [&](int64_t begin, int64_t end) {
    uint8_t* out = output + begin * groups_ * group_bytes_;
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      const uint64_t* words = input + pixel * words_for(channels_);
      for (int64_t group = 0; group < groups_; ++group) {
        // Whole units: the last bytes of a group are never wholly spare, so there is always a bit to extract.
        for (int64_t byte = 0; byte < group_bytes_; byte += 8) {
          const int64_t left = group_channels - byte * 8;
          const uint64_t value =
              extract_bits(words, group * group_channels + byte * 8, left < 64 ? left : 64);
          out = put_bytes(value, group_bytes_ - byte, out);
        }
      }
    }
  });
}

}  // namespace dirnet
