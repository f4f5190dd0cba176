#include "driver/align_groups.h"

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
        for (int64_t byte = 0; byte < group_bytes_; ++byte) {
          const int64_t left = group_channels - byte * 8;
          const int64_t first = group * group_channels + byte * 8;
          *out++ =
              left <= 0 ? uint8_t{0} : static_cast<uint8_t>(extract_bits(words, first, left < 8 ? left : 8));
        }
      }
    }
  });
}

}  // namespace dirnet
