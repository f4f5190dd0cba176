// Where the bits of a convolution lie: the arithmetic that the weight packer and the driver must agree on.
#ifndef DIRNET_SRC_DRIVER_LAYOUT_H_
#define DIRNET_SRC_DRIVER_LAYOUT_H_

#include "dirnet/dirnet.h"
#include "driver/tile.h"

namespace dirnet {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t words_for(int64_t channels) { return ceil_div(channels, 64); }

// Input channels in the word that a register of a block with several groups reads.
constexpr int64_t kSharedWordChannels = 32;

// Every tile reads the weights of its block. Parts of taps are a third more than taps: where they no longer
// fit into the nearest cache, reading them costs what they save.
constexpr int64_t kTripleBlockBytes = 32 * 1024;

// Neighbouring output channels that one micro-kernel call works on.
struct Block {
  int64_t first_channel;
  int64_t channels;
  int64_t group;          // of the first channel
  int64_t weights_begin;  // bytes from the packed weights' beginning to the block's first tap
  int64_t tap_bytes;
};

// Packed weights, in one of two forms. Lanes and units are those of Kernels.
//
// A block belongs to one group: [group][block][tap][unit][lane]. Every block of a group but the last is full.
// With triples, [group][block][row][unit][part][lane]: as if a row had as many taps as there are parts.
//
// A block is shared by as many groups as its 64 output channels reach: [block][header][tap][step][lane], for
// groups so narrow that lanes, and most of a unit's bits, would idle if each had blocks of its own. The
// channels of a group are a power of two, so that no group straddles a 32-bit word of input; the header holds
// the block's masks and positions (see SharedLanes).
class WeightLayout {
 public:
  WeightLayout(const Conv2dShape& s, const Kernels& k)
      : group_in(s.in_c / s.group),
        group_out(s.out_c / s.group),
        shared(s.group > 1 && group_in <= k.shared_group_channels && kSharedWordChannels % group_in == 0 &&
               kSharedWordChannels / group_in * group_out % k.lane_multiple == 0),
        unit_bytes(k.unit_bytes),
        units(ceil_div(group_in, 8 * k.unit_bytes)),
        triples(!shared && k.triple_tile != nullptr && s.kernel_w == kTripleTaps &&
                s.kernel_h * kTripleParts * units * unit_bytes * kBlockChannels <= kTripleBlockBytes),
        row_taps(triples ? kTripleParts : s.kernel_w),
        blocks(shared ? ceil_div(s.out_c, kBlockChannels) : s.group * ceil_div(group_out, kBlockChannels)),
        out_channels_(s.out_c),
        groups_(s.group),
        taps_(s.kernel_h * row_taps),
        lane_multiple_(k.lane_multiple) {}

  const int64_t group_in;
  const int64_t group_out;
  const bool shared;
  const int64_t unit_bytes;
  const int64_t units;  // input units of a tap; in shared blocks, steps
  const bool triples;
  const int64_t row_taps;  // stored for a row of the kernel
  const int64_t blocks;

  int64_t bytes() const { return shared ? blocks * shared_block_bytes() : groups_ * group_bytes(); }
  int64_t header_bytes() const { return kBlockChannels * (unit_bytes + units); }

  Block block(int64_t i) const {
    if (shared) {
      const int64_t first = i * kBlockChannels;
      const int64_t left = out_channels_ - first;
      return {first, left < kBlockChannels ? left : kBlockChannels, first / group_out,
              i * shared_block_bytes() + header_bytes(), units * unit_bytes * kBlockChannels};
    }
    const int64_t blocks_per_group = ceil_div(group_out, kBlockChannels);
    const int64_t group = i / blocks_per_group;
    const int64_t first = i % blocks_per_group * kBlockChannels;
    const int64_t left = group_out - first;
    const int64_t channels = left < kBlockChannels ? left : kBlockChannels;
    return {group * group_out + first, channels, group,
            group * group_bytes() + taps_ * units * unit_bytes * first, tap_bytes(channels)};
  }

 private:
  int64_t shared_block_bytes() const { return header_bytes() + taps_ * units * unit_bytes * kBlockChannels; }
  int64_t tap_bytes(int64_t channels) const {
    return units * unit_bytes * ceil_div(channels, lane_multiple_) * lane_multiple_;
  }
  int64_t group_bytes() const {
    const int64_t full = group_out / kBlockChannels * kBlockChannels;
    return taps_ * (units * unit_bytes * full + tap_bytes(group_out - full));
  }

  int64_t out_channels_;
  int64_t groups_;
  int64_t taps_;
  int64_t lane_multiple_;
};

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_LAYOUT_H_
