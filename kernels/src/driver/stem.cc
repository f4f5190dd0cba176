#include "dirnet/stem.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>

#include "dispatch/kernel_table.h"
#include "driver/parallel.h"
#include "driver/stem_rows.h"
#include "reference/reference.h"

namespace dirnet {

namespace {

// Enough for a few threads to share one image, and few enough that the rows that two bands compute both are
// few.
constexpr int64_t kBands = 4;

// Floats of the largest buffer, 1 GiB: a real stem needs a few million, and one whose padding asks for more
// would take the machine's memory for an output of a few pixels.
constexpr double kMostFloats = 1.0 * (int64_t{1} << 28);

// Winograd's sums mix all pixels of a tile, whose rounding errors grow with the largest of them: one beyond
// 2^17 (an image's largest is 65,535) would spoil outputs of the tile that do not see it.
constexpr uint32_t kLargestBits = (127U + 17U) << 23;

bool all_small(const float* x, int64_t count) {
  uint32_t large = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t word;
    std::memcpy(&word, x + i, sizeof(word));
    // Without their sign floats are ordered as their bits are; infinities and NaN come last.
    large |= static_cast<uint32_t>((word & 0x7FFFFFFFU) >= kLargestBits);
  }
  return large == 0;
}

// Whether every pixel is below 2^17 that pooled rows [begin, end) could see, with all rows of their tiles.
bool all_small(const StemShape& s, const float* image, int64_t begin, int64_t end) {
  const int64_t conv_begin = begin * s.pool_stride_h - s.pool_top;
  const int64_t conv_end = (end - 1) * s.pool_stride_h - s.pool_top + s.pool_h + kWinogradTile;
  const int64_t first = std::max<int64_t>(conv_begin * s.stride_h - s.pad_top, 0);
  const int64_t past = std::min(conv_end * s.stride_h + s.kernel_h, s.in_h);
  for (int64_t c = 0; c < s.in_c && first < past; ++c) {
    if (!all_small(image + (c * s.in_h + first) * s.in_w, (past - first) * s.in_w)) return false;
  }
  return true;
}

// A part of one image: pooled rows [begin, end).
class Band {
 public:
  Band(const PackedStem& stem, const StemShape& shape, const StemOutputs& outputs,
       const StemEpilogue& epilogue, const float* image, int64_t index, int64_t begin, int64_t end)
      : kernels_(*stem_kernels_of(stem.isa())),
        binarize_(kernels_of(stem.isa())->binarize),
        shape_(shape),
        outputs_(outputs),
        index_(index),
        begin_(begin),
        end_(end),
        channels_(padded_channels(shape)),
        ring_rows_(ring_rows(shape)),
        row_floats_(shape.conv_w() * channels_),
        ring_(static_cast<size_t>(band_floats<int64_t>(shape)) * sizeof(float)),
        window_rows_(static_cast<size_t>(ring_rows_) * sizeof(const float*)) {
    if (stem.is_int8()) {
      int8_.emplace(kernels_, stem, shape, epilogue, image);
    } else if (takes_winograd(shape) && all_small(shape, image, begin, end)) {
      winograd_.emplace(kernels_, stem, shape, epilogue, image);
    } else {
      direct_.emplace(kernels_, stem, shape, epilogue, image);
    }
  }

  bool ok() const {
    if (ring_.data() == nullptr || window_rows_.data() == nullptr) return false;
    return int8_ ? int8_->ok() : winograd_ ? winograd_->ok() : direct_->ok();
  }

  void run() {
    int64_t next = std::max<int64_t>(begin_ * shape_.pool_stride_h - shape_.pool_top, 0);
    bool first = true;
    for (int64_t row = begin_; row < end_; ++row) {
      const int64_t top = row * shape_.pool_stride_h - shape_.pool_top;
      const int64_t bottom = std::min(top + shape_.pool_h, shape_.conv_h());
      // Strides beyond the window leave rows out.
      if (top > next && !winograd_) next = top;
      while (next < bottom) {
        if (winograd_) {
          winograd_->write(next, first, {ring(next), ring(next + 1), ring(next + 2)});
          next += kWinogradOutputs;
        } else {
          if (int8_) {
            int8_->write(next, ring(next));
          } else {
            direct_->write(next, ring(next));
          }
          ++next;
        }
        first = false;
      }
      pool(row, std::max<int64_t>(top, 0), bottom);
    }
  }

 private:
  float* ring(int64_t row) const {
    return reinterpret_cast<float*>(ring_.data()) + row % ring_rows_ * row_floats_;
  }

  void pool(int64_t row, int64_t top, int64_t bottom) {
    const StemShape& s = shape_;
    const int64_t pixel = (index_ * s.out_h() + row) * s.out_w();
    float* line = reinterpret_cast<float*>(ring_.data()) + ring_rows_ * row_floats_;
    // Channels without spare lanes can be written where they belong.
    float* y = outputs_.y != nullptr ? outputs_.y + pixel * s.out_c : line;
    float* pooled = channels_ == s.out_c ? y : line;
    const float** rows = reinterpret_cast<const float**>(window_rows_.data());
    for (int64_t i = top; i < bottom; ++i) rows[i - top] = ring(i);
    kernels_.max_pool({rows, bottom - top, s.conv_w(), s.pool_w, s.pool_stride_w, s.pool_left, s.out_w(),
                       channels_, pooled});
    if (channels_ != s.out_c) {
      for (int64_t x = 0; x < s.out_w(); ++x) {
        std::memmove(y + x * s.out_c, line + x * channels_, static_cast<size_t>(s.out_c) * sizeof(float));
      }
    }
    if (outputs_.bits != nullptr) {
      binarize_(y, s.out_w(), s.out_c, outputs_.threshold, outputs_.bits + pixel * words_for(s.out_c));
    }
  }

  const StemKernels& kernels_;
  void (*binarize_)(const float*, int64_t, int64_t, const float*, uint64_t*);
  const StemShape& shape_;
  const StemOutputs& outputs_;
  int64_t index_;
  int64_t begin_, end_;
  int64_t channels_;  // padded
  int64_t ring_rows_;
  int64_t row_floats_;
  AlignedBuffer ring_;         // the last rows of the convolution, then one pooled row
  AlignedBuffer window_rows_;  // where those rows lie that a row of windows sees
  std::optional<WinogradRows> winograd_;
  std::optional<DirectRows> direct_;
  std::optional<Int8Rows> int8_;
};

// 0 for nothing, however much padding is around it.
int64_t extent(int64_t in, int64_t before, int64_t after, int64_t window, int64_t stride) {
  if (in == 0) return 0;
  const int64_t room = in + before + after - window;
  return room < 0 ? 0 : room / stride + 1;
}

}  // namespace

int64_t StemShape::conv_h() const { return extent(in_h, pad_top, pad_bottom, kernel_h, stride_h); }
int64_t StemShape::conv_w() const { return extent(in_w, pad_left, pad_right, kernel_w, stride_w); }
int64_t StemShape::out_h() const { return extent(conv_h(), pool_top, pool_bottom, pool_h, pool_stride_h); }
int64_t StemShape::out_w() const { return extent(conv_w(), pool_left, pool_right, pool_w, pool_stride_w); }

bool stem_buffers_fit(const StemShape& s) {
  const double winograd = takes_winograd(s) ? winograd_floats<double>(s) : 0.0;
  return std::max({band_floats<double>(s), window_floats<double>(s), winograd}) <= kMostFloats;
}

bool stem_conv2d(const PackedStem& stem, const float* x, const StemShape& s, const StemOutputs& outputs,
                 const Parallel& parallel) {
  if (s.batch == 0 || s.out_h() == 0 || s.out_w() == 0) return true;
  if (stem.isa() == Isa::kReference) return reference::stem_conv2d(stem, x, s, outputs);
  const int64_t bands = std::min(s.out_h(), kBands);
  const int64_t height = (s.out_h() + bands - 1) / bands;
  const AlignedBuffer slope_memory(static_cast<size_t>(padded_channels(s)) * sizeof(float));
  if (slope_memory.data() == nullptr) return false;
  float* slope = nullptr;
  if (outputs.slope != nullptr) {
    slope = reinterpret_cast<float*>(slope_memory.data());
    std::copy_n(outputs.slope, s.out_c, slope);
  }
  const StemEpilogue epilogue{stem.floats(), slope, outputs.clip_min, outputs.clip_max};
  std::atomic<bool> ok{true};
  for_each_item(parallel, s.batch * bands, [&](int64_t item) {
    const int64_t index = item / bands;
    const int64_t begin = item % bands * height;
    const int64_t end = std::min(begin + height, s.out_h());
    if (begin >= end) return;
    Band band(stem, s, outputs, epilogue, x + index * s.in_c * s.in_h * s.in_w, index, begin, end);
    if (!band.ok()) {
      ok.store(false);
      return;
    }
    band.run();
  });
  return ok.load();
}

}  // namespace dirnet
