#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>

#include "dirnet/training.h"
#include "dispatch/kernel_table.h"
#include "driver/layout.h"
#include "driver/memory.h"
#include "driver/parallel.h"
#include "training/gradient_layout.h"

namespace dirnet {

namespace {

constexpr float kLargestStep = 32767.0F;
constexpr float kLeastMagnitude = 1e-30F;  // its inverse times the steps is still a float

// Rows of weight gradients that one item adds up: some tiles, and few enough for many threads.
constexpr int64_t kItemRows = 72;

// A float number is `scale` times a whole one, which is the float times `factor`, rounded.
struct Step {
  float scale;
  float factor;
};

Step step_of(float largest) {
  if (!(largest <= FLT_MAX)) return {std::numeric_limits<float>::quiet_NaN(), 0.0F};
  if (largest < kLeastMagnitude) return {0.0F, 0.0F};
  return {largest / kLargestStep, kLargestStep / largest};
}

class SignConvBackward {
 public:
  SignConvBackward(Isa isa, const Conv2dShape& shape, const float* threshold, const float* weights)
      : isa_(isa),
        shape_(shape),
        layout_(shape),
        loops_(*training_loops_of(isa)),
        threshold_(threshold),
        weights_(weights),
        blocks_(ceil_div(shape.batch, layout_.images)),
        weight_signs_(int16_bytes(shape.group * layout_.in_tiles * layout_.weights_tile)),
        weight_scales_(float_bytes(shape.out_c)),
        pairs_(int16_bytes(shape.batch * layout_.pairs_image), Contents::kUndefined),
        signs_(int16_bytes(shape.batch * layout_.signs_image), Contents::kUndefined),
        pair_scales_(float_bytes(blocks_ * lanes_of_block())),
        segments_(static_cast<size_t>(layout_.images * layout_.y.out) * sizeof(DotSegment)) {}

  bool run(FloatType x_type, const void* x, FloatType gradient_type, const void* y_gradient,
           const SignConvGradients& gradients, const Parallel& parallel) {
    for (const AlignedBuffer* buffer :
         {&weight_signs_, &weight_scales_, &pairs_, &signs_, &pair_scales_, &segments_}) {
      if (buffer->data() == nullptr) return false;
    }
    lay_out_weights(parallel);
    lay_out_segments();
    for_each_item(parallel, blocks_, [&](int64_t block) {
      const int64_t first = block * layout_.images;
      const int64_t left = shape_.batch - first;
      const int64_t images = left < layout_.images ? left : layout_.images;
      do_block(block, images, x_type, at_image(static_cast<const char*>(x), x_type, first, in_values()),
               gradient_type,
               at_image(static_cast<const char*>(y_gradient), gradient_type, first, out_values()),
               at_image(static_cast<char*>(gradients.signs), gradient_type, first, in_values()));
    });
    const int64_t chunk = ceil_div(kItemRows, layout_.taps);
    const int64_t chunks = ceil_div(layout_.group_in, chunk);
    for_each_item(parallel, shape_.group * layout_.out_tiles * chunks, [&](int64_t item) {
      const int64_t begin = item % chunks * chunk;
      const int64_t left = layout_.group_in - begin;
      add_up_weights(item / chunks, begin, left < chunk ? left : chunk, gradients.weights);
    });
    return enough_memory_;
  }

 private:
  static size_t int16_bytes(int64_t count) { return static_cast<size_t>(count) * sizeof(int16_t); }
  static size_t float_bytes(int64_t count) { return static_cast<size_t>(count) * sizeof(float); }
  // `values` from the image `image` on; Byte is char or const char.
  template <typename Byte>
  static Byte* at_image(Byte* values, FloatType type, int64_t image, int64_t image_values) {
    return values + image * image_values * value_bytes(type);
  }
  int64_t in_values() const { return shape_.in_h * shape_.in_w * shape_.in_c; }
  int64_t out_values() const { return layout_.y.out * layout_.x.out * shape_.out_c; }
  int64_t lanes_of_block() const { return shape_.group * layout_.out_tiles * kDotLanes; }
  int16_t* pairs() const { return reinterpret_cast<int16_t*>(pairs_.data()); }
  int16_t* signs() const { return reinterpret_cast<int16_t*>(signs_.data()); }
  float* weight_scales() const { return reinterpret_cast<float*>(weight_scales_.data()); }
  float* pair_scales(int64_t block) const {
    return reinterpret_cast<float*>(pair_scales_.data()) + block * lanes_of_block();
  }

  void lay_out_weights(const Parallel& parallel) const {
    for (int64_t o = 0; o < shape_.out_c; ++o)
      weight_scales()[o] = std::fabs(weights_[o * layout_.taps * layout_.group_in]);
    for_each_item(parallel, shape_.group * layout_.in_tiles, [&](int64_t item) {
      const int64_t group = item / layout_.in_tiles, first_c = item % layout_.in_tiles * kDotLanes;
      const int64_t left = layout_.group_in - first_c, lanes = left < kDotLanes ? left : kDotLanes;
      int16_t* to = reinterpret_cast<int16_t*>(weight_signs_.data()) + item * layout_.weights_tile;
      for (int64_t tap = 0; tap < layout_.taps; ++tap, to += layout_.tap_values) {
        for (int64_t o = 0; o < layout_.group_out; o += 2) {
          const int64_t of_output = layout_.taps * layout_.group_in;
          const float* even =
              weights_ + (group * layout_.group_out + o) * of_output + tap * layout_.group_in + first_c;
          const float* odd = o + 1 < layout_.group_out ? even + of_output : even;
          const int16_t has_odd = odd != even;
          int16_t* pair = to + o * kDotLanes;
          for (int64_t lane = 0; lane < lanes; ++lane) {
            pair[2 * lane] = even[lane] >= 0.0F ? 1 : -1;
            pair[2 * lane + 1] = odd[lane] >= 0.0F ? has_odd : static_cast<int16_t>(-has_odd);
          }
        }
      }
    });
  }

  // The rows of windows of a block's images, for the gradient of the weights.
  void lay_out_segments() const {
    DotSegment* to = reinterpret_cast<DotSegment*>(segments_.data());
    for (int64_t n = 0; n < layout_.images; ++n) {
      for (int64_t row = 0; row < layout_.y.out; ++row) {
        *to++ = {n * layout_.signs_image + row * layout_.y.stride * layout_.plane_width,
                 n * layout_.pairs_image + row * layout_.pairs_row};
      }
    }
  }

  // All of a block but the gradient of the weights: pointers are to its first image.
  void do_block(int64_t block, int64_t images, FloatType x_type, const void* x, FloatType gradient_type,
                const void* y_gradient, void* signs_gradient) const {
    const bool widens_x = x_type == FloatType::kBfloat16, narrows = gradient_type == FloatType::kBfloat16;
    const int64_t x_count = images * in_values(), y_count = images * out_values();
    const int64_t words = images * shape_.in_h * shape_.in_w * words_for(shape_.in_c);
    const int64_t floats = (widens_x ? x_count : 0) + (narrows ? x_count + y_count : 0);
    const AlignedBuffer scratch(float_bytes(floats + 1), Contents::kUndefined);
    const AlignedBuffer bits(static_cast<size_t>(words) * sizeof(uint64_t), Contents::kUndefined);
    const AlignedBuffer padded(int16_bytes(images * layout_.padded_image));
    const AlignedBuffer vectors(float_bytes(2 * layout_.group_out));
    if (scratch.data() == nullptr || bits.data() == nullptr || padded.data() == nullptr ||
        vectors.data() == nullptr) {
      enough_memory_ = false;
      return;
    }
    float* free_floats = reinterpret_cast<float*>(scratch.data());
    const float* x_floats = static_cast<const float*>(x);
    const float* y_floats = static_cast<const float*>(y_gradient);
    float* to = static_cast<float*>(signs_gradient);
    if (widens_x) {
      loops_.widen(static_cast<const uint16_t*>(x), x_count, free_floats);
      x_floats = free_floats;
      free_floats += x_count;
    }
    if (narrows) {
      loops_.widen(static_cast<const uint16_t*>(y_gradient), y_count, free_floats);
      y_floats = free_floats;
      to = free_floats + y_count;
    }
    uint64_t* words_of_x = reinterpret_cast<uint64_t*>(bits.data());
    binarize(isa_, x_floats, images * shape_.in_h * shape_.in_w, shape_.in_c, threshold_, words_of_x,
             Parallel{});
    for (int64_t n = 0; n < images; ++n) {
      lay_out_signs(words_of_x + n * shape_.in_h * shape_.in_w * words_for(shape_.in_c),
                    signs() + (block * layout_.images + n) * layout_.signs_image);
    }
    int16_t* rounded = reinterpret_cast<int16_t*>(padded.data());
    for (int64_t group = 0; group < shape_.group; ++group) {
      const float scale = round_gradient(block, images, group, y_floats + group * layout_.group_out,
                                         reinterpret_cast<float*>(vectors.data()), rounded);
      spread_to_inputs(images, group, rounded, scale, to + group * layout_.group_in);
    }
    if (narrows) loops_.narrow(to, x_count, static_cast<uint16_t*>(signs_gradient));
  }

  // The planes of one image.
  void lay_out_signs(const uint64_t* bits, int16_t* to) const {
    std::memset(to, 0, int16_bytes(layout_.signs_image));
    const int64_t step = words_for(shape_.in_c);
    const GradientAxis &y = layout_.y, &x = layout_.x;
    for (int64_t first = 0; first < shape_.in_c; first += 16) {
      const int64_t left = shape_.in_c - first;
      const int channels = left < 16 ? static_cast<int>(left) : 16;
      for (int64_t row = 0; row < layout_.plane_height; ++row) {
        const int64_t in_row = row - y.pad;
        if (in_row < 0 || in_row >= y.in) continue;
        for (int64_t phase = 0; phase < x.stride; ++phase) {
          // Column j of a phase is the input j * stride + phase - pad.
          const int64_t begin = phase < x.pad ? ceil_div(x.pad - phase, x.stride) : 0;
          const int64_t last = x.in - 1 + x.pad - phase;
          const int64_t inside = last < 0 ? 0 : last / x.stride + 1;
          const int64_t end = inside < layout_.plane_width ? inside : layout_.plane_width;
          if (begin >= end) continue;
          const uint64_t* from =
              bits + (in_row * x.in + begin * x.stride + phase - x.pad) * step + first / 64;
          const SignRun run{from, step * x.stride, end - begin, static_cast<int>(first % 64), channels};
          loops_.gradients.signs(run,
                                 to + first * layout_.plane_values + phase * layout_.phase_values +
                                     row * layout_.plane_width + begin,
                                 layout_.plane_values);
        }
      }
    }
  }

  // Rounds the gradient of one group for both convolutions; returns the scale of `rounded`, which is for the
  // inputs'. `vectors` are two of the group's output channels.
  float round_gradient(int64_t block, int64_t images, int64_t group, const float* gradient, float* vectors,
                       int16_t* rounded) const {
    const GradientAxis &y = layout_.y, &x = layout_.x;
    float *largest = vectors, *factors = vectors + layout_.group_out;
    loops_.gradients.magnitudes(gradient, images * y.out * x.out, layout_.group_out, shape_.out_c, largest);
    // An output's gradient reaches the inputs times its weights' magnitude.
    const float* magnitudes = weight_scales() + group * layout_.group_out;
    float most = 0.0F;
    for (int64_t o = 0; o < layout_.group_out; ++o) {
      const float product = largest[o] * magnitudes[o];
      if (product > most || std::isnan(product)) most = product;
    }
    const Step step = step_of(most);
    for (int64_t o = 0; o < layout_.group_out; ++o) factors[o] = magnitudes[o] * step.factor;
    for (int64_t n = 0; n < images; ++n) {
      for (int64_t row = 0; row < y.out; ++row) {
        int16_t* to = rounded + n * layout_.padded_image +
                      ((row + y.before) * x.padded + x.before) * layout_.pixel_values;
        loops_.gradients.round_pixels(gradient + (n * y.out + row) * x.out * shape_.out_c, x.out,
                                      layout_.group_out, shape_.out_c, factors, to, layout_.pixel_values);
      }
    }
    for (int64_t tile = 0; tile < layout_.out_tiles; ++tile) {
      const int64_t first = tile * kDotLanes, left = layout_.group_out - first;
      const int channels = left < kDotLanes ? static_cast<int>(left) : kDotLanes;
      const int64_t at_tile = group * layout_.out_tiles + tile;
      float* scales = pair_scales(block) + at_tile * kDotLanes;
      float pair_factors[kDotLanes] = {};
      for (int lane = 0; lane < channels; ++lane) {
        const Step own = step_of(largest[first + lane]);
        scales[lane] = own.scale;
        pair_factors[lane] = own.factor;
      }
      for (int64_t n = 0; n < images; ++n) {
        int16_t* to =
            pairs() + (block * layout_.images + n) * layout_.pairs_image + at_tile * layout_.pairs_tile;
        for (int64_t row = 0; row < y.out; ++row) {
          loops_.gradients.round_pixel_pairs(gradient + (n * y.out + row) * x.out * shape_.out_c + first,
                                             x.out, channels, shape_.out_c, pair_factors,
                                             to + row * layout_.pairs_row);
        }
      }
    }
    return step.scale;
  }

  // The gradient of one group's signs.
  void spread_to_inputs(int64_t images, int64_t group, const int16_t* rounded, float scale, float* to) const {
    const AlignedBuffer segments(static_cast<size_t>(layout_.taps) * sizeof(DotSegment));
    if (segments.data() == nullptr) {
      enough_memory_ = false;
      return;
    }
    DotSegment* reached = reinterpret_cast<DotSegment*>(segments.data());
    const GradientAxis &y = layout_.y, &x = layout_.x;
    for (int64_t first_y = 0; first_y < y.stride && first_y < y.in; ++first_y) {
      for (int64_t first_x = 0; first_x < x.stride && first_x < x.in; ++first_x) {
        int64_t count = 0;
        for (int64_t tap = 0; tap < layout_.taps; ++tap) {
          const int64_t tap_y = tap / x.kernel, tap_x = tap % x.kernel;
          if (!y.reaches(tap_y, first_y) || !x.reaches(tap_x, first_x)) continue;
          const int64_t pixels = y.shift(tap_y, first_y) * x.padded + x.shift(tap_x, first_x);
          reached[count++] = {pixels * layout_.pixel_values, tap * layout_.tap_values};
        }
        spread_to_class(images, group, rounded, scale, first_y, first_x, reached, count, to);
      }
    }
  }

  void spread_to_class(int64_t images, int64_t group, const int16_t* rounded, float scale, int64_t first_y,
                       int64_t first_x, const DotSegment* segments, int64_t segment_count, float* to) const {
    const GradientAxis &y = layout_.y, &x = layout_.x;
    const int64_t rows = y.class_size(first_y), columns = x.class_size(first_x);
    const int64_t pixels = images * rows * columns;
    DotOperands operands;
    operands.segments = segments;
    operands.segment_count = segment_count;
    operands.pairs = layout_.pixel_values / 2;
    for (int64_t tile = 0; tile < layout_.in_tiles; ++tile) {
      const int64_t first_c = tile * kDotLanes, left = layout_.group_in - first_c;
      operands.lanes = reinterpret_cast<const int16_t*>(weight_signs_.data()) +
                       (group * layout_.in_tiles + tile) * layout_.weights_tile;
      const int16_t* from_row = nullptr;
      float* to_row = nullptr;
      int64_t row = 0, column = columns;
      for_each_tile(pixels, [&](int64_t begin, int64_t end) {
        float* out[kMostDotRows];
        const int count = static_cast<int>(end - begin);
        for (int pixel = 0; pixel < count; ++pixel, ++column) {
          if (column == columns) {
            const int64_t n = row / rows, i = row % rows;
            from_row = rounded + n * layout_.padded_image +
                       ((i + y.before) * x.padded + x.before) * layout_.pixel_values;
            to_row = to + ((n * y.in + first_y + i * y.stride) * x.in + first_x) * shape_.in_c + first_c;
            ++row;
            column = 0;
          }
          operands.rows[pixel] = from_row + column * layout_.pixel_values;
          out[pixel] = to_row + column * x.stride * shape_.in_c;
        }
        loops_.gradients.dots(operands, count, scale, out,
                              left < kDotLanes ? static_cast<int>(left) : kDotLanes);
      });
    }
  }

  // The gradient of the weights from `count` channels of a group, `begin` the first, to one tile of outputs.
  void add_up_weights(int64_t at_tile, int64_t begin, int64_t count, float* to) const {
    const int64_t group = at_tile / layout_.out_tiles, tile = at_tile % layout_.out_tiles;
    const GradientAxis &y = layout_.y, &x = layout_.x;
    const int64_t rows = count * layout_.taps;
    const AlignedBuffer sums_buffer(float_bytes(rows * kDotLanes));
    if (sums_buffer.data() == nullptr) {
      enough_memory_ = false;
      return;
    }
    float* sums = reinterpret_cast<float*>(sums_buffer.data());
    DotOperands operands;
    operands.segments = reinterpret_cast<const DotSegment*>(segments_.data());
    operands.pairs = (x.out + 1) / 2;
    for (int64_t block = 0; block < blocks_; ++block) {
      const int64_t first = block * layout_.images, left = shape_.batch - first;
      operands.segment_count = (left < layout_.images ? left : layout_.images) * y.out;
      operands.lanes = pairs() + first * layout_.pairs_image + at_tile * layout_.pairs_tile;
      const int16_t* planes =
          signs() + first * layout_.signs_image + (group * layout_.group_in + begin) * layout_.plane_values;
      for_each_tile(rows, [&](int64_t from, int64_t end) {
        for (int64_t row = from; row < end; ++row) {
          const int64_t tap = row / count;
          const int64_t down = tap / x.kernel * y.dilation, right = tap % x.kernel * x.dilation;
          operands.rows[row - from] = planes + row % count * layout_.plane_values +
                                      right % x.stride * layout_.phase_values + down * layout_.plane_width +
                                      right / x.stride;
        }
        loops_.gradients.add_dots(operands, static_cast<int>(end - from),
                                  pair_scales(block) + at_tile * kDotLanes, sums + from * kDotLanes);
      });
    }
    const int64_t first_o = tile * kDotLanes, outs = layout_.group_out - first_o;
    for (int64_t lane = 0; lane < kDotLanes && lane < outs; ++lane) {
      const int64_t o = group * layout_.group_out + first_o + lane;
      const float* sum = sums + lane;
      for (int64_t tap = 0; tap < layout_.taps; ++tap) {
        float* of_tap = to + (o * layout_.taps + tap) * layout_.group_in + begin;
        for (int64_t c = 0; c < count; ++c, sum += kDotLanes) of_tap[c] = *sum;
      }
    }
  }

  // Splits [0, count) into as few tiles as there can be, of nearly equal size.
  template <typename Job>
  void for_each_tile(int64_t count, const Job& job) const {
    const int64_t tiles = ceil_div(count, loops_.gradients.dot_rows);
    for (int64_t tile = 0; tile < tiles; ++tile) job(tile * count / tiles, (tile + 1) * count / tiles);
  }

  const Isa isa_;
  const Conv2dShape& shape_;
  const GradientLayout layout_;
  const TrainingLoops& loops_;
  const float* threshold_;
  const float* weights_;
  const int64_t blocks_;
  const AlignedBuffer weight_signs_, weight_scales_, pairs_, signs_, pair_scales_, segments_;
  mutable std::atomic<bool> enough_memory_{true};
};

}  // namespace

bool sign_conv2d_backward(Isa isa, FloatType x_type, const void* x, const float* threshold,
                          const float* weights, const Conv2dShape& shape, FloatType gradient_type,
                          const void* y_gradient, const SignConvGradients& gradients,
                          const Parallel& parallel) {
  SignConvBackward backward(isa, shape, threshold, weights);
  return backward.run(x_type, x, gradient_type, y_gradient, gradients, parallel);
}

}  // namespace dirnet
