// Where the bits of a convolution lie: the arithmetic that the weight packer and the driver must agree on.
#ifndef DIRNET_SRC_DRIVER_LAYOUT_H_
#define DIRNET_SRC_DRIVER_LAYOUT_H_

#include "dirnet/dirnet.h"
#include "driver/tile.h"

namespace dirnet {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t words_for(int64_t channels) { return ceil_div(channels, 64); }

// Packed weights: [group][block][tap][unit][lane], lane innermost. Every block of a group but the last is
// full.
struct WeightLayout {
  int64_t taps;
  int64_t group_in;
  int64_t group_out;
  int64_t units;  // input units of a tap
  int64_t blocks_per_group;
  int64_t unit_bytes;
  int64_t lane_multiple;

  WeightLayout(const Conv2dShape& s, const Kernels& k)
      : taps(s.kernel_h * s.kernel_w),
        group_in(s.in_c / s.group),
        group_out(s.out_c / s.group),
        units(ceil_div(group_in, 8 * k.unit_bytes)),
        blocks_per_group(ceil_div(group_out, kBlockChannels)),
        unit_bytes(k.unit_bytes),
        lane_multiple(k.lane_multiple) {}

  int64_t block_channels(int64_t block) const {
    const int64_t left = group_out - block * kBlockChannels;
    return left < kBlockChannels ? left : kBlockChannels;
  }
  int64_t tap_bytes(int64_t block) const {
    return units * unit_bytes * ceil_div(block_channels(block), lane_multiple) * lane_multiple;
  }
  int64_t block_offset(int64_t block) const { return block * taps * units * unit_bytes * kBlockChannels; }
  int64_t group_bytes() const {
    const int64_t last = blocks_per_group - 1;
    return block_offset(last) + taps * tap_bytes(last);
  }
};

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_LAYOUT_H_
