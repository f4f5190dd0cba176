#include <cstring>

#include "dirnet/dirnet.h"
#include "dispatch/kernel_table.h"
#include "driver/layout.h"

namespace dirnet {

namespace {

// The tap of one output channel, whose words word(i) gives, written unit by unit into its lane, one unit
// `step` bytes behind the other.
template <typename Word>
void pack_lane(const Word& word, const WeightLayout& layout, int64_t step, uint8_t* lane) {
  for (int64_t unit = 0; unit < layout.units; ++unit) {
    for (int64_t byte = 0; byte < layout.unit_bytes; ++byte) {
      const int64_t position = unit * layout.unit_bytes + byte;
      lane[unit * step + byte] = static_cast<uint8_t>(word(position / 8) >> (position % 8 * 8));
    }
  }
}

void pack_block(const uint64_t* weights, const WeightLayout& layout, int64_t taps, const Block& block,
                uint8_t* packed) {
  const int64_t step = block.tap_bytes / layout.units;
  const int64_t words = words_for(layout.group_in);
  for (int64_t tap = 0; tap < taps; ++tap) {
    uint8_t* packed_tap = packed + block.weights_begin + tap * block.tap_bytes;
    for (int64_t channel = 0; channel < block.channels; ++channel) {
      const uint64_t* tap_words = weights + ((block.first_channel + channel) * taps + tap) * words;
      pack_lane([&](int64_t i) { return tap_words[i]; }, layout, step,
                packed_tap + channel * layout.unit_bytes);
    }
  }
}

// The parts of a row of three taps (see kTripleParts), side by side for each unit.
void pack_triple_block(const uint64_t* weights, const WeightLayout& layout, int64_t taps, const Block& block,
                       uint8_t* packed) {
  const int64_t part_bytes = block.tap_bytes / layout.units;
  const int64_t words = words_for(layout.group_in);
  for (int64_t row = 0; row < taps / kTripleTaps; ++row) {
    uint8_t* packed_row = packed + block.weights_begin + row * kTripleParts * block.tap_bytes;
    for (int64_t channel = 0; channel < block.channels; ++channel) {
      const uint64_t* v0 = weights + ((block.first_channel + channel) * taps + row * kTripleTaps) * words;
      const uint64_t* v1 = v0 + words;
      const uint64_t* v2 = v1 + words;
      uint8_t* lane = packed_row + channel * layout.unit_bytes;
      const auto pack_part = [&](int64_t part, const auto& word) {
        pack_lane(word, layout, kTripleParts * part_bytes, lane + part * part_bytes);
      };
      pack_part(0, [&](int64_t i) { return v1[i]; });
      pack_part(1, [&](int64_t i) { return v1[i] ^ v0[i]; });
      pack_part(2, [&](int64_t i) { return v1[i] ^ v2[i]; });
      pack_part(3, [&](int64_t i) { return v0[i] ^ v1[i] ^ v2[i]; });
    }
  }
}

void put_unit(uint64_t value, int64_t bytes, uint8_t* to) {
  for (int64_t byte = 0; byte < bytes; ++byte) to[byte] = static_cast<uint8_t>(value >> (byte * 8));
}

// A block of several groups: the bits of a lane lie where its group's channels lie in the word of input.
void pack_shared_block(const uint64_t* weights, const WeightLayout& layout, int64_t taps, const Block& block,
                       uint8_t* packed) {
  const int64_t unit_bits = 8 * layout.unit_bytes;
  uint8_t* mask = packed + block.weights_begin - layout.header_bytes();
  uint8_t* position = mask + kBlockChannels * layout.unit_bytes;
  for (int64_t lane = 0; lane < block.channels; ++lane) {
    const int64_t channel = block.first_channel + lane;
    const int64_t word_bit = channel / layout.group_out * layout.group_in % kSharedWordChannels;
    const int64_t shift = word_bit % unit_bits;
    const int64_t step_bits = layout.group_in < unit_bits ? layout.group_in : unit_bits;
    put_unit(((uint64_t{1} << step_bits) - 1) << shift, layout.unit_bytes, mask + lane * layout.unit_bytes);
    for (int64_t step = 0; step < layout.units; ++step) {
      position[step * kBlockChannels + lane] =
          static_cast<uint8_t>((word_bit / unit_bits + step) * layout.unit_bytes);
      for (int64_t tap = 0; tap < taps; ++tap) {
        const uint64_t bits = weights[channel * taps + tap] >> (step * unit_bits) << shift;
        put_unit(bits, layout.unit_bytes,
                 packed + block.weights_begin + tap * block.tap_bytes +
                     (step * kBlockChannels + lane) * layout.unit_bytes);
      }
    }
  }
}

}  // namespace

PackedWeights pack_weights(Isa isa, const uint64_t* weights, const Conv2dShape& shape) {
  const Kernels* kernels = kernels_of(isa);
  if (kernels == nullptr) {  // the reference reads the file's own layout
    const int64_t words = shape.out_c * shape.kernel_h * shape.kernel_w * words_for(shape.in_c / shape.group);
    const size_t bytes = static_cast<size_t>(words) * sizeof(uint64_t);
    PackedWeights packed(isa, bytes);
    if (!packed.empty()) std::memcpy(packed.data_, weights, bytes);
    return packed;
  }
  const WeightLayout layout(shape, *kernels);
  PackedWeights packed(isa, static_cast<size_t>(layout.bytes()));
  if (packed.empty()) return packed;
  const auto pack = layout.shared ? pack_shared_block : layout.triples ? pack_triple_block : pack_block;
  for (int64_t i = 0; i < layout.blocks; ++i) {
    pack(weights, layout, shape.kernel_h * shape.kernel_w, layout.block(i), packed.data_);
  }
  return packed;
}

}  // namespace dirnet
