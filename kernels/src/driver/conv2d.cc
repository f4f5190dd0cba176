// The tile driver: cuts a convolution into tiles (pixels of one class) times blocks (64 output channels) and
// hands them to the micro-kernels of one ISA.
#include <cstring>

#include "dirnet/dirnet.h"
#include "dispatch/kernel_table.h"
#include "driver/align_groups.h"
#include "driver/block_epilogue.h"
#include "driver/layout.h"
#include "driver/memory.h"
#include "driver/parallel.h"
#include "driver/prefetch.h"
#include "driver/spread_input.h"
#include "driver/tile_classes.h"
#include "driver/triple_planes.h"
#include "reference/reference.h"

namespace dirnet {

namespace {

// Multiply-adds of one parallel item: some microseconds, far more than it costs to hand the item out.
constexpr int64_t kMacsPerItem = 4 * 1000 * 1000;
// All weights of a layer, where they stay in a core's second cache beside its pixels.
constexpr int64_t kSecondCacheWeightBytes = 128 * 1024;
// Weights of a block that a thread spreads for its tiles, on its stack: they stay in the nearest cache beside
// tables and input.
constexpr int64_t kNearWeightBytes = 20 * 1024;

class Convolution {
 public:
  Convolution(const Kernels& kernels, const uint8_t* weights, const uint64_t* input, const Conv2dShape& shape,
              const Epilogue& epilogue, const TileClasses& classes)
      : kernels_(kernels),
        weights_(weights),
        shape_(shape),
        epilogue_(epilogue),
        classes_(classes),
        layout_(shape, kernels),
        out_h_(shape.out_h()),
        out_w_(shape.out_w()),
        input_(reinterpret_cast<const uint8_t*>(input)),
        unit_bytes_(kernels.unit_bytes),
        pixel_bytes_(words_for(shape.in_c) * 8),
        group_bytes_(layout_.shared ? 0 : layout_.group_in / 8) {}

  // Whether every group starts on a unit of the input itself.
  bool reads_in_place() const {
    return shape_.group == 1 || layout_.shared || layout_.group_in % (8 * layout_.unit_bytes) == 0;
  }

  // Reads the groups from copies that start on a unit each, instead of from the input itself.
  void use_aligned_groups(const uint8_t* aligned) {
    input_ = aligned;
    group_bytes_ = layout_.units * layout_.unit_bytes;
    pixel_bytes_ = shape_.group * group_bytes_;
  }

  // Whether the micro-kernels read a copy of the input with its units spread.
  bool wants_spread_input() const { return !layout_.shared && kernels_.spread_input != nullptr; }
  const uint8_t* input() const { return input_; }
  int64_t pixel_bytes() const { return pixel_bytes_; }

  void use_spread_input(const uint8_t* spread) {
    input_ = spread;
    unit_bytes_ = kernels_.input_unit_bytes;
    pixel_bytes_ = pixel_bytes_ / kernels_.unit_bytes * unit_bytes_;
    group_bytes_ = group_bytes_ / kernels_.unit_bytes * unit_bytes_;
  }

  // False only when memory ran out.
  bool run(const Parallel& parallel) {
    const int64_t blocks = layout_.blocks;
    // Once for all items: they are many more than the blocks.
    const AlignedBuffer memory(static_cast<size_t>(blocks) * sizeof(BlockEpilogue), Contents::kUndefined);
    if (memory.data() == nullptr) return false;
    BlockEpilogue* epilogues = reinterpret_cast<BlockEpilogue*>(memory.data());
    const OutputExtent extent{shape_.batch * out_h_ * out_w_, shape_.out_c, !blocks_share_words()};
    for (int64_t i = 0; i < blocks; ++i) epilogues[i] = block_epilogue(epilogue_, layout_.block(i), extent);
    epilogues_ = epilogues;
    if (!layout_.triples) {
      run_items(parallel);
      return true;
    }
    const TriplePlanes planes(kernels_, shape_, input_, pixel_bytes_, parallel);
    if (planes.empty()) return false;
    planes_ = &planes;
    run_items(parallel);
    return true;
  }

 private:
  void run_items(const Parallel& parallel) const {
    const int64_t blocks = layout_.blocks;
    // A lane of a shared block works through the whole word, whatever part of it is its group's.
    const int64_t lane_channels = layout_.shared ? kSharedWordChannels : layout_.group_in;
    const int64_t tile_macs =
        kernels_.tile_pixels * kBlockChannels * shape_.kernel_h * shape_.kernel_w * lane_channels;
    if (blocks_share_words()) {
      // Items are cut by pixels only, so that no two threads touch one word of bits.
      const int64_t words = shape_.batch * out_h_ * out_w_ * words_for(shape_.out_c);
      std::memset(epilogue_.bits, 0, static_cast<size_t>(words) * sizeof(uint64_t));
      for_each_chunk(parallel, classes_.tiles(), ceil_div(kMacsPerItem, tile_macs * blocks),
                     [&](int64_t begin, int64_t end) { run_blocks(0, blocks, begin, end); });
      return;
    }
    const int64_t item_tiles = ceil_div(kMacsPerItem, tile_macs);
    const int64_t chunks = ceil_div(classes_.tiles(), item_tiles);
    if (chunks <= 1) {  // small images: an item is some blocks of all the tiles
      const int64_t block_macs = tile_macs * (classes_.tiles() > 0 ? classes_.tiles() : 1);
      for_each_chunk(parallel, blocks, ceil_div(kMacsPerItem, block_macs),
                     [&](int64_t begin, int64_t end) { run_blocks(begin, end, 0, classes_.tiles()); });
      return;
    }
    const int64_t weight_bytes = blocks * shape_.kernel_h * layout_.row_taps * layout_.block(0).tap_bytes;
    if (parallel.run != nullptr && blocks > 1 && weight_bytes <= kSecondCacheWeightBytes) {
      run_parts(parallel);
      return;
    }
    // Neighbouring items share a block: its weights stay in the nearest cache.
    for_each_item(parallel, blocks * chunks, [&](int64_t item) {
      const int64_t begin = item % chunks * item_tiles;
      const int64_t end = begin + item_tiles < classes_.tiles() ? begin + item_tiles : classes_.tiles();
      run_blocks(item / chunks, item / chunks + 1, begin, end);
    });
  }

  // Neighbouring items share a part of the pixels: a thread writes them whole, in this layer and in the next
  // one. Threads that took a block each would write to the same cache lines of bits, from core to core.
  void run_parts(const Parallel& parallel) const {
    const int64_t blocks = layout_.blocks;
    const int64_t part_tiles = ceil_div(classes_.tiles(), kPixelParts);
    for_each_item(parallel, kPixelParts * blocks, [&](int64_t item) {
      const int64_t part = item / blocks;
      // There and back: the block that ends a part, and is in the nearest cache, begins the next one.
      const int64_t block = part % 2 == 0 ? item % blocks : blocks - 1 - item % blocks;
      const int64_t begin = part * part_tiles;
      const int64_t end = begin + part_tiles < classes_.tiles() ? begin + part_tiles : classes_.tiles();
      if (begin < end) run_blocks(block, block + 1, begin, end);
    });
  }

  // Only with groups whose channels do not fill whole words of output bits.
  bool blocks_share_words() const {
    return epilogue_.bits != nullptr && shape_.group > 1 && !layout_.shared &&
           layout_.group_out % kBlockChannels != 0;
  }

  void run_blocks(int64_t first_block, int64_t past_block, int64_t begin, int64_t end) const {
    for (int64_t block = first_block; block < past_block; ++block) run_block(block, begin, end);
  }

  SharedLanes shared_lanes(const Block& block) const {
    const uint8_t* header = weights_ + block.weights_begin - layout_.header_bytes();
    SharedLanes lanes{header, header + kBlockChannels * layout_.unit_bytes, layout_.units, {}};
    const int64_t word_outputs = kSharedWordChannels / layout_.group_in * layout_.group_out;
    for (int r = 0; r * kernels_.lane_multiple < block.channels; ++r)
      lanes.input_offset[r] = (block.first_channel + r * kernels_.lane_multiple) / word_outputs * 4;
    return lanes;
  }

  // A block's weights as its tiles read them, and what runs a tile of separate taps.
  struct BlockWeights {
    const uint8_t* taps;
    int64_t tap_bytes;
    void (*run_tile)(const ConvTile& tile);
  };

  // Spreads the weights into `room`, kNearWeightBytes of it, where they fit and it is of use.
  BlockWeights spread_weights(const BlockWeights& weights, int64_t block_bytes, uint8_t* room) const {
    const bool spreads = kernels_.spread_weights != nullptr && !layout_.shared;
    if (!spreads || block_bytes * kernels_.spread_copies > kNearWeightBytes) return weights;
    kernels_.spread_weights(weights.taps, block_bytes, room);
    return {room, weights.tap_bytes * kernels_.spread_copies, kernels_.spread_tile};
  }

  // Tiles [begin, end) of one block.
  void run_block(int64_t index, int64_t begin, int64_t end) const {
    const Block block = layout_.block(index);
    const SharedLanes lanes = layout_.shared ? shared_lanes(block) : SharedLanes{};
    const BlockWeights packed{weights_ + block.weights_begin, block.tap_bytes,
                              layout_.shared ? kernels_.shared_tile : kernels_.conv_tile};
    // A network's weights are more than the second cache holds, and come from afar at every run.
    const int64_t block_bytes = shape_.kernel_h * layout_.row_taps * block.tap_bytes;
    const Prefetch next_block = index + 1 < layout_.blocks
                                    ? Prefetch(packed.taps + block_bytes, block_bytes, classes_.tiles())
                                    : Prefetch();
    alignas(64) uint8_t room[kNearWeightBytes];
    const BlockWeights weights = spread_weights(packed, block_bytes, room);
    ConvTile tile{};
    tile.epilogue = epilogues_ + index;
    tile.shared = &lanes;
    tile.input_tap_bytes = shape_.dilation_w * pixel_bytes_;
    tile.input_row_bytes = shape_.dilation_h * shape_.in_w * pixel_bytes_;
    tile.weight_tap_bytes = weights.tap_bytes;
    tile.weight_row_bytes = layout_.row_taps * weights.tap_bytes;
    if (planes_ != nullptr) tile.plane_bytes = planes_->plane_bytes();
    for (int64_t i = 0; i < classes_.count(); ++i) {
      const TileClass& tile_class = classes_[i];
      const int64_t first = tile_class.first_tile > begin ? tile_class.first_tile : begin;
      const int64_t past = tile_class.first_tile + tile_class.tiles;
      const int64_t last = past < end ? past : end;
      if (first < last) run_class(tile_class, first, last, block.group, weights, tile, next_block);
    }
  }

  void run_class(const TileClass& c, int64_t first, int64_t last, int64_t group, const BlockWeights& weights,
                 ConvTile& tile, const Prefetch& next_block) const {
    tile.rows = c.x.taps > 0 ? c.y.taps : 0;
    tile.taps = c.x.taps;
    tile.units = layout_.units;
    tile.dot_max = static_cast<int32_t>(c.y.taps * c.x.taps * layout_.group_in);
    tile.weights = weights.taps + c.y.first_tap * layout_.row_taps * weights.tap_bytes;
    const uint8_t* input = input_;
    int64_t input_tap = c.x.first_tap;
    auto run_tile = weights.run_tile;
    if (layout_.triples && c.x.taps == kTripleTaps) {
      run_tile = kernels_.triple_tile;
      input = planes_->data();
      input_tap = 1;
    } else if (layout_.triples) {
      run_tile = kernels_.single_taps_tile;
      tile.first_tap = c.x.first_tap;
    } else {
      tile.weights += c.x.first_tap * weights.tap_bytes;
      // Taps of a row that touch in memory are one long run.
      if (!layout_.shared && tile.input_tap_bytes == tile.units * unit_bytes_) {
        tile.units *= tile.taps;
        tile.taps = 1;
      }
    }
    PixelCursor cursor(*this, c, input + group * group_bytes_, input_tap, c.tile_begin(first));
    for (int64_t t = first; t < last; ++t) {
      tile.pixels = c.tile_pixels(t);
      cursor.take(&tile);
      next_block.step(t);
      run_tile(tile);
    }
  }

  // Walks through the pixels of a class, row by row and image by image.
  struct PixelCursor {
    const uint8_t* input;  // the pixel's tap `input_tap` in the first valid row
    int64_t output;        // index of the output pixel

    PixelCursor(const Convolution& conv, const TileClass& c, const uint8_t* group_input, int64_t input_tap,
                int64_t pixel)
        : conv_(conv),
          class_(c),
          group_input_(group_input),
          input_tap_(input_tap),
          columns_(c.x.end - c.x.begin) {
      // Most begin with their class; divisions are dear beside the few tiles of a small image.
      if (pixel > 0) {
        const int64_t rows = c.y.end - c.y.begin;
        column_ = pixel % columns_;
        row_ = pixel / columns_ % rows;
        image_ = pixel / columns_ / rows;
      }
      // Without any valid tap there is nothing to point at, and nothing is read.
      step_bytes_ = c.y.taps == 0 || c.x.taps == 0 ? 0 : conv.shape_.stride_w * conv.pixel_bytes_;
      locate();
    }

    // Fills in the pixels of a tile and goes on to the one behind them.
    void take(ConvTile* tile) {
      for (int p = 0; p < tile->pixels; ++p) {
        tile->input[p] = input;
        tile->output[p] = output++;
        input += step_bytes_;
        if (++column_ == columns_) next_row();
      }
    }

   private:
    void next_row() {
      column_ = 0;
      if (++row_ == class_.y.end - class_.y.begin) {
        row_ = 0;
        ++image_;
      }
      if (image_ < conv_.shape_.batch) locate();
    }

    void locate() {
      const Conv2dShape& s = conv_.shape_;
      const int64_t oy = class_.y.begin + row_;
      const int64_t ox = class_.x.begin + column_;
      output = (image_ * conv_.out_h_ + oy) * conv_.out_w_ + ox;
      input = group_input_;
      if (step_bytes_ == 0) return;
      const int64_t iy = oy * s.stride_h - s.pad_top + class_.y.first_tap * s.dilation_h;
      const int64_t ix = ox * s.stride_w - s.pad_left + input_tap_ * s.dilation_w;
      input += ((image_ * s.in_h + iy) * s.in_w + ix) * conv_.pixel_bytes_;
    }

    const Convolution& conv_;
    const TileClass& class_;
    const uint8_t* group_input_;
    int64_t input_tap_;
    int64_t columns_;
    int64_t column_ = 0, row_ = 0, image_ = 0;
    int64_t step_bytes_;
  };

  const Kernels& kernels_;
  const uint8_t* weights_;
  const Conv2dShape& shape_;
  const Epilogue& epilogue_;
  const TileClasses& classes_;
  const BlockEpilogue* epilogues_ = nullptr;  // of each block
  const TriplePlanes* planes_ = nullptr;
  WeightLayout layout_;
  int64_t out_h_;
  int64_t out_w_;
  const uint8_t* input_;
  int64_t unit_bytes_;   // of the input
  int64_t pixel_bytes_;  // from one input pixel to the next
  int64_t group_bytes_;  // from one group to the next in an input pixel
};

// False only when memory ran out.
bool run_spread(const Kernels& kernels, const Conv2dShape& shape, Convolution& convolution,
                const Parallel& parallel) {
  if (!convolution.wants_spread_input()) return convolution.run(parallel);
  const SpreadInput spread(kernels, shape, convolution.input(), convolution.pixel_bytes(), parallel);
  if (spread.empty()) return false;
  convolution.use_spread_input(spread.data());
  return convolution.run(parallel);
}

// False only when memory ran out.
bool run_images(const Kernels& kernels, const PackedWeights& weights, const uint64_t* input,
                const Conv2dShape& shape, const Epilogue& epilogue, const Parallel& parallel) {
  const TileClasses classes(shape, kernels.tile_pixels);
  if (!classes.ok()) return false;
  Convolution convolution(kernels, weights.data(), input, shape, epilogue, classes);
  if (convolution.reads_in_place()) return run_spread(kernels, shape, convolution, parallel);
  const GroupAlignment alignment(shape, kernels.unit_bytes);
  const AlignedBuffer aligned(alignment.bytes());
  if (aligned.data() == nullptr) return false;
  alignment.run(input, aligned.data(), parallel);
  convolution.use_aligned_groups(aligned.data());
  return run_spread(kernels, shape, convolution, parallel);
}

// Copies of more images than these would leave the nearest caches before they are read.
constexpr int64_t kCopiedBytes = 256 * 1024;

int64_t images_at_once(const Kernels& kernels, const Conv2dShape& shape) {
  if (shape.batch <= 1) return shape.batch;
  const WeightLayout layout(shape, kernels);
  const bool spreads = kernels.spread_input != nullptr && !layout.shared;
  if (!layout.triples && !spreads) return shape.batch;
  const int64_t copies = layout.triples ? kTripleParts : kernels.input_unit_bytes / kernels.unit_bytes;
  const int64_t bytes = copies * shape.in_h * shape.in_w * words_for(shape.in_c) * 8;
  return bytes < kCopiedBytes ? kCopiedBytes / bytes : 1;
}

}  // namespace

bool binary_conv2d(const PackedWeights& weights, const uint64_t* input, const Conv2dShape& shape,
                   const Epilogue& epilogue, const Parallel& parallel) {
  const Kernels* kernels = kernels_of(weights.isa());
  if (kernels == nullptr) {
    reference::binary_conv2d(reinterpret_cast<const uint64_t*>(weights.data()), input, shape, epilogue);
    return true;
  }
  const int64_t input_words = shape.in_h * shape.in_w * words_for(shape.in_c);
  const int64_t output_pixels = shape.out_h() * shape.out_w();
  const int64_t step = images_at_once(*kernels, shape);
  for (int64_t first = 0; first < shape.batch; first += step) {
    Conv2dShape part = shape;
    part.batch = shape.batch - first < step ? shape.batch - first : step;
    Epilogue e = epilogue;
    const int64_t pixel = first * output_pixels;
    if (e.residual != nullptr) e.residual += pixel * shape.out_c;
    if (e.y != nullptr) e.y += pixel * shape.out_c;
    if (e.bits != nullptr) e.bits += pixel * words_for(shape.out_c);
    if (!run_images(*kernels, weights, input + first * input_words, part, e, parallel)) return false;
  }
  return true;
}

}  // namespace dirnet
