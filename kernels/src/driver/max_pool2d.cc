#include <initializer_list>

#include "dirnet/dirnet.h"
#include "driver/layout.h"
#include "driver/parallel.h"

namespace dirnet {

namespace {

constexpr int64_t kWordsPerItem = 16 * 1024;

// The taps of a window that lie inside the image, along one axis: [begin, end), none where end <= begin.
struct Taps {
  int64_t begin, end;
};

// `first` is where the first tap lies. Windows may be far larger than the image.
Taps taps_inside(int64_t first, int64_t kernel, int64_t dilation, int64_t size) {
  const int64_t begin = first < 0 ? ceil_div(-first, dilation) : 0;
  const int64_t end = first + (kernel - 1) * dilation < size ? kernel : ceil_div(size - first, dilation);
  return {begin, end};
}

// max over +-1 values is +1 if any of them is: the OR of their bits.
void pool_row(const uint64_t* image, const Pool2dShape& s, int64_t oy, uint64_t* out) {
  const int64_t words = words_for(s.channels);
  const int64_t top = oy * s.stride_h - s.pad_top;
  const Taps down = taps_inside(top, s.kernel_h, s.dilation_h, s.in_h);
  for (int64_t ox = 0; ox < s.out_w; ++ox, out += words) {
    for (int64_t i = 0; i < words; ++i) out[i] = 0;
    const int64_t left = ox * s.stride_w - s.pad_left;
    const Taps across = taps_inside(left, s.kernel_w, s.dilation_w, s.in_w);
    for (int64_t ky = down.begin; ky < down.end; ++ky) {
      const uint64_t* row = image + (top + ky * s.dilation_h) * s.in_w * words;
      for (int64_t kx = across.begin; kx < across.end; ++kx) {
        const uint64_t* tap = row + (left + kx * s.dilation_w) * words;
        for (int64_t i = 0; i < words; ++i) out[i] |= tap[i];
      }
    }
  }
}

// Rows of output that are work enough for an item. Divided step by step: their product may be beyond 64 bits.
int64_t rows_of_item(const Pool2dShape& s) {
  int64_t rows = kWordsPerItem;
  for (const int64_t work : {s.out_w * words_for(s.channels), s.kernel_h, s.kernel_w}) {
    if (work > 1) rows = ceil_div(rows, work);
  }
  return rows;
}

}  // namespace

void binary_max_pool2d(const uint64_t* input, const Pool2dShape& s, uint64_t* output,
                       const Parallel& parallel) {
  const int64_t words = words_for(s.channels);
  for_each_chunk(parallel, s.batch * s.out_h, rows_of_item(s), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      pool_row(input + row / s.out_h * s.in_h * s.in_w * words, s, row % s.out_h,
               output + row * s.out_w * words);
    }
  });
}

}  // namespace dirnet
