#include "driver/tile_classes.h"

#include "driver/layout.h"
#include "driver/memory.h"

namespace dirnet {

namespace {

struct Axis {
  int64_t in, out, kernel, stride, pad, dilation;
};

// A division is as dear as a whole step of the micro-kernel, and most networks never dilate.
int64_t ceil_div_by_dilation(int64_t a, int64_t dilation) {
  return dilation == 1 ? a : ceil_div(a, dilation);
}

// Valid taps of output position `o`: 0 <= o * stride - pad + tap * dilation < in.
AxisSegment taps_at(const Axis& a, int64_t o) {
  const int64_t start = o * a.stride - a.pad;
  const int64_t first = start < 0 ? ceil_div_by_dilation(-start, a.dilation) : 0;
  const int64_t past = start < a.in ? ceil_div_by_dilation(a.in - start, a.dilation) : 0;
  const int64_t last = past < a.kernel ? past : a.kernel;
  if (first >= last) return {o, o + 1, 0, 0};
  return {o, o + 1, first, last - first};
}

// Each end of the interval of valid taps takes at most kernel + 1 values and only falls, and there may be
// stretches without any tap between the changes; never more segments than positions.
int64_t max_segments(const Axis& a) {
  const int64_t changes = 4 * (a.kernel + 1);
  return changes < a.out ? changes : a.out;
}

int64_t split_axis(const Axis& a, AxisSegment* segments) {
  int64_t count = 0;
  for (int64_t o = 0; o < a.out; ++o) {
    const AxisSegment here = taps_at(a, o);
    if (count > 0 && here.first_tap == segments[count - 1].first_tap &&
        here.taps == segments[count - 1].taps) {
      segments[count - 1].end = here.end;
    } else {
      segments[count++] = here;
    }
  }
  return count;
}

}  // namespace

TileClasses::TileClasses(const Conv2dShape& s, int64_t tile_pixels) {
  const Axis y{s.in_h, s.out_h(), s.kernel_h, s.stride_h, s.pad_top, s.dilation_h};
  const Axis x{s.in_w, s.out_w(), s.kernel_w, s.stride_w, s.pad_left, s.dilation_w};
  const size_t segment_count = static_cast<size_t>(max_segments(y) + max_segments(x));
  const AlignedBuffer memory(segment_count * sizeof(AxisSegment));
  if (memory.data() == nullptr) return;
  AxisSegment* rows = reinterpret_cast<AxisSegment*>(memory.data());
  AxisSegment* columns = rows + max_segments(y);
  const int64_t row_count = split_axis(y, rows);
  const int64_t column_count = split_axis(x, columns);
  classes_ = reinterpret_cast<TileClass*>(
      allocate_aligned(static_cast<size_t>(row_count * column_count) * sizeof(TileClass)));
  if (classes_ == nullptr) return;
  for (int64_t r = 0; r < row_count; ++r) {
    for (int64_t c = 0; c < column_count; ++c) {
      TileClass& added = classes_[count_++];
      added.y = rows[r];
      added.x = columns[c];
      added.pixels = s.batch * (rows[r].end - rows[r].begin) * (columns[c].end - columns[c].begin);
      added.first_tile = tiles_;
      added.tiles = ceil_div(added.pixels, tile_pixels);
      if (added.tiles == 0) continue;  // an empty batch
      added.least_pixels = added.pixels / added.tiles;
      added.fuller_tiles = added.pixels % added.tiles;
      tiles_ += added.tiles;
    }
  }
}

TileClasses::~TileClasses() { free_aligned(reinterpret_cast<uint8_t*>(classes_)); }

}  // namespace dirnet
