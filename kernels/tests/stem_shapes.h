#ifndef DIRNET_TESTS_STEM_SHAPES_H_
#define DIRNET_TESTS_STEM_SHAPES_H_

#include "check.h"
#include "dirnet/stem.h"

namespace dirnet {
namespace test {

// Draws the padding and the pooling of `s`, whose padding is smaller than its window.
inline void draw_pads_and_pool(Random& random, StemShape* s) {
  s->pad_top = random.below(4);
  s->pad_left = random.below(4);
  s->pad_bottom = random.below(4);
  s->pad_right = random.below(4);
  s->pool_h = 1 + random.below(3);
  s->pool_w = 1 + random.below(3);
  s->pool_stride_h = 1 + random.below(4);
  s->pool_stride_w = 1 + random.below(3);
  s->pool_top = random.below(s->pool_h);
  s->pool_left = random.below(s->pool_w);
  s->pool_bottom = random.below(s->pool_h);
  s->pool_right = random.below(s->pool_w);
}

}  // namespace test
}  // namespace dirnet

#endif  // DIRNET_TESTS_STEM_SHAPES_H_
