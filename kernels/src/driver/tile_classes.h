// Output pixels sorted by which kernel taps they see.
//
// A tap (ky, kx) of output pixel (oy, ox) reads the image at iy = oy * stride - pad + ky * dilation (and ix
// likewise), and counts only if that is inside. For a fixed oy the valid ky are one interval, and its two
// ends only fall as oy grows; so output rows with equal intervals are contiguous, and so are columns. A class
// is one such rectangle of the output: inside it no kernel tests a border, and at the border no work is spent
// on padding.
#ifndef DIRNET_SRC_DRIVER_TILE_CLASSES_H_
#define DIRNET_SRC_DRIVER_TILE_CLASSES_H_

#include "dirnet/dirnet.h"

namespace dirnet {

// Output positions [begin, end) of one axis whose valid taps are [first_tap, first_tap + taps).
struct AxisSegment {
  int64_t begin, end;
  int64_t first_tap, taps;
};

struct TileClass {
  AxisSegment y, x;
  int64_t pixels;      // batch * rows * columns
  int64_t first_tile;  // numbered through all classes
  int64_t tiles;
  // The pixels are dealt to the tiles as evenly as possible: the first `fuller_tiles` have one more than the
  // rest.
  int64_t least_pixels;
  int64_t fuller_tiles;

  int64_t tile_begin(int64_t tile) const {
    const int64_t i = tile - first_tile;
    return i * least_pixels + (i < fuller_tiles ? i : fuller_tiles);
  }
  int tile_pixels(int64_t tile) const {
    return static_cast<int>(least_pixels + (tile - first_tile < fuller_tiles ? 1 : 0));
  }
};

class TileClasses {
 public:
  TileClasses(const Conv2dShape& shape, int64_t tile_pixels);
  TileClasses(const TileClasses&) = delete;
  TileClasses& operator=(const TileClasses&) = delete;
  ~TileClasses();

  bool ok() const { return classes_ != nullptr; }  // false: memory ran out
  int64_t count() const { return count_; }
  int64_t tiles() const { return tiles_; }
  const TileClass& operator[](int64_t i) const { return classes_[i]; }

 private:
  TileClass* classes_ = nullptr;
  int64_t count_ = 0;
  int64_t tiles_ = 0;
};

}  // namespace dirnet

#endif  // DIRNET_SRC_DRIVER_TILE_CLASSES_H_
