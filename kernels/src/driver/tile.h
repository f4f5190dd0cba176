// What the driver hands to a micro-kernel: plain data only. Files compiled with an ISA's flags include this
// header and nothing else of the library or of the C++ standard library: a std:: inline function instantiated
// there could be the copy that the linker keeps for everybody, and would crash on an older CPU.
#ifndef DIRNET_SRC_DRIVER_TILE_H_
#define DIRNET_SRC_DRIVER_TILE_H_

#include <stddef.h>
#include <stdint.h>

namespace dirnet {

// A block is what one micro-kernel call covers in output channels: one word of output bits.
constexpr int kBlockChannels = 64;
constexpr int kMaxTilePixels = 8;
constexpr int kMaxBlockRegisters = 4;

// The epilogue of one block, channels counted from the block's first. Entries past `channels` are zero.
struct BlockEpilogue {
  alignas(64) float scale[kBlockChannels];
  alignas(64) float double_scale[kBlockChannels];
  alignas(64) float bias[kBlockChannels];
  alignas(64) float slope[kBlockChannels];
  alignas(64) float threshold[kBlockChannels];
  float clip_min;
  float clip_max;
  int channels;     // 1 .. kBlockChannels
  bool can_double;  // no 2 * scale overflows: dot * scale = (dot / 2) * double_scale to the bit for even dots
  bool has_clip;
  bool has_slope;
  bool slope_is_max;  // where has_slope: v < 0 ? slope * v : v is the larger of slope * v and v, to the bit
  const float* residual;  // of pixel 0, null = none
  bool far_residual;      // not in the nearer caches: worth fetching before it is needed
  float* y;               // of pixel 0, null = none
  int64_t pixel_floats;   // from one pixel to the next in residual and y
  uint64_t* bits;         // the word of pixel 0 that holds the block's first bit, null = none
  int64_t pixel_words;    // from one pixel to the next in bits
  int bit_shift;          // position of the block's first bit in its word
  bool owns_word;         // no other block writes this word (then bit_shift is 0)
};

// What a block needs to know whose channels belong to several groups (see layout.h). Register r of its lanes
// reads the 32-bit word of input at input_offset[r] bytes, which holds all the channels of their groups; in
// step s a lane sees the unit_bytes bytes of it that begin at byte position[s * kBlockChannels + lane], and
// of those the bits of `mask`.
struct SharedLanes {
  const uint8_t* mask;      // [lane], unit_bytes each
  const uint8_t* position;  // [step][lane]
  int64_t steps;
  int64_t input_offset[kMaxBlockRegisters];
};

// A row of three taps adds up with fewer operations than three single ones. With x_i = a_i xor w_i,
//
//   popcnt(x_0) + popcnt(x_1) + popcnt(x_2) = popcnt(x_0 xor x_1 xor x_2) + 2 popcnt(majority(x_0, x_1,
//   x_2)), majority = x_1 xor ((x_1 xor x_0) and (x_1 xor x_2)),
//
// and every exclusive-or in it is a part made of inputs alone xor the same of weights alone: kTripleParts of
// each, v_1, v_1 xor v_0, v_1 xor v_2 and v_0 xor v_1 xor v_2. Those of the weights are packed instead of the
// taps, those of the input are planes, made once for all output channels.
constexpr int kTripleTaps = 3;
constexpr int kTripleParts = 4;

// Up to kMaxTilePixels output pixels that see the same valid taps, `rows` x `taps` of them, times one block.
struct ConvTile {
  const uint8_t* input[kMaxTilePixels];  // the first valid tap of each pixel
  int64_t output[kMaxTilePixels];        // index of each output pixel
  int pixels;
  int32_t dot_max;          // K: the dot product when every bit agrees
  int64_t rows;             // valid kernel rows
  int64_t taps;             // separate runs of input in a row
  int64_t units;            // input units (see Kernels::unit_bytes) in a run
  int64_t input_row_bytes;  // from one kernel row to the next
  int64_t input_tap_bytes;  // from one run to the next
  int64_t weight_row_bytes;
  int64_t weight_tap_bytes;
  int64_t plane_bytes;     // triple_tile: from one part of the input to the next
  int64_t first_tap;       // single_taps_tile: of the triple
  const uint8_t* weights;  // the block's weights at the first valid tap, aligned to 16 bytes or more
  const BlockEpilogue* epilogue;
  const SharedLanes* shared;  // for shared_tile only, which has no use for `units`
};

// The kernels of one ISA. Weights of a block lie as [tap][unit][lane], a lane being one output channel and a
// unit the bits of 8 * unit_bytes input channels; the lanes of a block are padded with zeros to a multiple of
// lane_multiple. Weights of a block with several groups lie as [tap][step][lane], always kBlockChannels
// lanes. Where an ISA has triple_tile, rows of three taps lie as [row][unit][part][lane].
struct Kernels {
  int unit_bytes;
  int input_unit_bytes;  // of a unit as conv_tile reads it: unit_bytes, or what spread_input makes of it
  int lane_multiple;
  int tile_pixels;            // the most pixels that conv_tile and shared_tile take
  int shared_group_channels;  // the widest groups, in input channels, for which shared_tile is worth its
                              // while
  void (*conv_tile)(const ConvTile& tile);
  // Null where conv_tile reads the input as it is.
  void (*spread_input)(const uint8_t* input, int64_t units, uint8_t* spread);
  // conv_tile on what spread_weights makes of a block's weights, `spread_copies` times as many bytes. Null
  // where that is no faster than the weights as they are.
  void (*spread_tile)(const ConvTile& tile);
  int spread_copies;
  void (*spread_weights)(const uint8_t* weights, int64_t bytes, uint8_t* spread);
  // Of kernels with rows of three taps: pixels that see all three, their input being the planes' first and
  // its pixel the middle one; pixels that see `taps` of them. Null where conv_tile is as fast.
  void (*triple_tile)(const ConvTile& tile);
  void (*single_taps_tile)(const ConvTile& tile);
  // The planes of `units` units with a neighbour to the left and one to the right each.
  void (*triple_planes)(const uint8_t* left, const uint8_t* middle, const uint8_t* right, int64_t units,
                        uint8_t* plane, int64_t plane_bytes);
  void (*shared_tile)(const ConvTile& tile);
  void (*binarize)(const float* x, int64_t pixels, int64_t channels, const float* threshold, uint64_t* bits);
};

extern const Kernels kPortableKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kNeonKernels;

// Internal linkage on purpose: every ISA gets its own copy.
static inline void store_bits(const BlockEpilogue& e, int64_t pixel, uint64_t block_bits) {
  uint64_t* word = e.bits + pixel * e.pixel_words;
  if (e.owns_word) {
    *word = block_bits;
    return;
  }
  word[0] |= block_bits << e.bit_shift;
  // The second word exists only if the block reaches into it.
  if (e.bit_shift + e.channels > 64) word[1] |= block_bits >> (64 - e.bit_shift);
}

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_TILE_H_
