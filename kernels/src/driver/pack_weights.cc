#include "dirnet/dirnet.h"
#include "dispatch/kernel_table.h"
#include "driver/layout.h"
#include "driver/memory.h"

namespace dirnet {

namespace {

// The tap of one output channel, written unit by unit into its lane.
void pack_lane(const uint64_t* tap_words, const WeightLayout& layout, int64_t lanes, uint8_t* lane) {
  for (int64_t unit = 0; unit < layout.units; ++unit) {
    for (int64_t byte = 0; byte < layout.unit_bytes; ++byte) {
      const int64_t position = unit * layout.unit_bytes + byte;
      lane[unit * lanes * layout.unit_bytes + byte] =
          static_cast<uint8_t>(tap_words[position / 8] >> (position % 8 * 8));
    }
  }
}

void pack_block(const uint64_t* weights, const WeightLayout& layout, int64_t block, uint8_t* out) {
  const int64_t channels = layout.block_channels(block);
  const int64_t lanes = ceil_div(channels, layout.lane_multiple) * layout.lane_multiple;
  for (int64_t tap = 0; tap < layout.taps; ++tap) {
    uint8_t* packed_tap = out + tap * layout.tap_bytes(block);
    for (int64_t channel = 0; channel < channels; ++channel) {
      pack_lane(weights + (channel * layout.taps + tap) * words_for(layout.group_in), layout, lanes,
                packed_tap + channel * layout.unit_bytes);
    }
  }
}

}  // namespace

PackedWeights::PackedWeights(PackedWeights&& other) noexcept { *this = static_cast<PackedWeights&&>(other); }

PackedWeights& PackedWeights::operator=(PackedWeights&& other) noexcept {
  if (this == &other) return *this;
  free_aligned(data_);
  data_ = other.data_;
  size_bytes_ = other.size_bytes_;
  isa_ = other.isa_;
  other.data_ = nullptr;
  other.size_bytes_ = 0;
  return *this;
}

PackedWeights::~PackedWeights() { free_aligned(data_); }

PackedWeights pack_weights(Isa isa, const uint64_t* weights, const Conv2dShape& shape) {
  PackedWeights packed;
  packed.isa_ = isa;
  const Kernels* kernels = kernels_of(isa);
  if (kernels == nullptr) {  // the reference reads the file's own layout
    const int64_t words = shape.out_c * shape.kernel_h * shape.kernel_w * words_for(shape.in_c / shape.group);
    packed.size_bytes_ = static_cast<size_t>(words) * sizeof(uint64_t);
    packed.data_ = allocate_aligned(packed.size_bytes_);
    if (packed.data_ == nullptr) return PackedWeights();
    uint64_t* copy = reinterpret_cast<uint64_t*>(packed.data_);
    for (int64_t i = 0; i < words; ++i) copy[i] = weights[i];
    return packed;
  }
  const WeightLayout layout(shape, *kernels);
  packed.size_bytes_ = static_cast<size_t>(shape.group * layout.group_bytes());
  packed.data_ = allocate_aligned(packed.size_bytes_);
  if (packed.data_ == nullptr) return PackedWeights();
  const int64_t channel_words = layout.taps * words_for(layout.group_in);
  for (int64_t group = 0; group < shape.group; ++group) {
    for (int64_t block = 0; block < layout.blocks_per_group; ++block) {
      pack_block(weights + (group * layout.group_out + block * kBlockChannels) * channel_words, layout, block,
                 packed.data_ + group * layout.group_bytes() + layout.block_offset(block));
    }
  }
  return packed;
}

}  // namespace dirnet
