#include "dirnet/dirnet.h"
#include "driver/layout.h"
#include "driver/parallel.h"

namespace dirnet {

namespace {

constexpr int64_t kWordsPerItem = 16 * 1024;

// max over +-1 values is +1 if any of them is: the OR of their bits.
void pool_row(const uint64_t* image, const Pool2dShape& s, int64_t oy, uint64_t* out) {
  const int64_t words = words_for(s.channels);
  for (int64_t i = 0; i < s.out_w * words; ++i) out[i] = 0;
  for (int64_t ky = 0; ky < s.kernel_h; ++ky) {
    const int64_t iy = oy * s.stride_h - s.pad_top + ky * s.dilation_h;
    if (iy < 0 || iy >= s.in_h) continue;
    for (int64_t ox = 0; ox < s.out_w; ++ox) {
      for (int64_t kx = 0; kx < s.kernel_w; ++kx) {
        const int64_t ix = ox * s.stride_w - s.pad_left + kx * s.dilation_w;
        if (ix < 0 || ix >= s.in_w) continue;
        const uint64_t* tap = image + (iy * s.in_w + ix) * words;
        for (int64_t i = 0; i < words; ++i) out[ox * words + i] |= tap[i];
      }
    }
  }
}

}  // namespace

void binary_max_pool2d(const uint64_t* input, const Pool2dShape& s, uint64_t* output,
                       const Parallel& parallel) {
  const int64_t words = words_for(s.channels);
  const int64_t row_work = s.out_w * words * s.kernel_h * s.kernel_w;
  const int64_t chunk = ceil_div(kWordsPerItem, row_work > 0 ? row_work : 1);
  for_each_chunk(parallel, s.batch * s.out_h, chunk, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      pool_row(input + row / s.out_h * s.in_h * s.in_w * words, s, row % s.out_h,
               output + row * s.out_w * words);
    }
  });
}

}  // namespace dirnet
