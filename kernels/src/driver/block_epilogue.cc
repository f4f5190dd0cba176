#include "driver/block_epilogue.h"

#include <cfloat>
#include <cmath>
#include <cstring>

namespace dirnet {

namespace {

// The loops here run for every block of every call: without a way out, compilers make vectors of them.

bool all_one(const float* x, int64_t count) {
  int others = 0;
  for (int64_t i = 0; i < count; ++i) others |= x[i] != 1.0F ? 1 : 0;
  return others == 0;
}

// Whether twice a finite number of these is finite.
bool can_double(const float* x, int64_t count) {
  int too_large = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float size = std::fabs(x[i]);
    too_large |= (size > FLT_MAX / 2 ? 1 : 0) & (size <= FLT_MAX ? 1 : 0);
  }
  return too_large == 0;
}

// Signs alone can do without the clip: clip(v) >= t is v >= t where t lies in (clip_min, clip_max], below
// that true for every number, above it for none. What is NaN reaches no threshold, with the clip or without.
void fold_clip(BlockEpilogue* e) {
  for (int i = 0; i < e->channels; ++i) {
    const float t = e->threshold[i];
    if (t <= e->clip_min) e->threshold[i] = -INFINITY;
    if (t > e->clip_max) e->threshold[i] = NAN;
  }
  e->has_clip = false;
}

// About what the second cache holds of a tensor.
constexpr int64_t kNearFloats = 256 * 1024;

bool is_minus_zero(float x) { return x == 0.0F && std::signbit(x); }

// v < 0 ? slope * v : v is the larger of the two for slopes up to one; but infinities times zero are no
// number, and a negative slope makes +0 of a v of -0, which only a bias or a bound of -0 lets through.
bool slope_is_max(const BlockEpilogue& e) {
  const int bound = is_minus_zero(e.clip_min) || is_minus_zero(e.clip_max) ? 1 : 0;
  int others = 0;
  for (int i = 0; i < e.channels; ++i) {
    const float slope = e.slope[i];
    others |= (slope <= 1.0F ? 0 : 1) | (slope < -FLT_MAX ? 1 : 0) | (slope == 0.0F ? 1 : 0);
    others |= (slope < 0.0F ? 1 : 0) & (bound | (is_minus_zero(e.bias[i]) ? 1 : 0));
  }
  return others == 0;
}

}  // namespace

BlockEpilogue block_epilogue(const Epilogue& epilogue, const Block& block, const OutputExtent& extent) {
  const int64_t first_channel = block.first_channel;
  const int64_t channels = block.channels;
  BlockEpilogue e{};
  const size_t bytes = static_cast<size_t>(channels) * sizeof(float);
  std::memcpy(e.scale, epilogue.scale + first_channel, bytes);
  std::memcpy(e.bias, epilogue.bias + first_channel, bytes);
  for (int64_t i = 0; i < channels; ++i) e.double_scale[i] = 2.0F * e.scale[i];
  e.can_double = can_double(e.scale, channels);
  // Networks without PReLU have slopes of one, which change nothing.
  e.has_slope = epilogue.slope != nullptr && !all_one(epilogue.slope + first_channel, channels);
  if (e.has_slope) std::memcpy(e.slope, epilogue.slope + first_channel, bytes);
  e.clip_min = epilogue.clip_min;
  e.clip_max = epilogue.clip_max;
  e.has_clip = !(e.clip_min == -INFINITY && e.clip_max == INFINITY);
  e.channels = static_cast<int>(channels);
  e.slope_is_max = e.has_slope && slope_is_max(e);
  e.residual = epilogue.residual != nullptr ? epilogue.residual + first_channel : nullptr;
  e.far_residual = e.residual != nullptr && extent.pixels * extent.channels > kNearFloats;
  e.y = epilogue.y != nullptr ? epilogue.y + first_channel : nullptr;
  e.pixel_floats = extent.channels;
  if (epilogue.bits != nullptr) {
    std::memcpy(e.threshold, epilogue.threshold + first_channel, bytes);
    e.bits = epilogue.bits + first_channel / 64;
    e.pixel_words = words_for(extent.channels);
    e.bit_shift = static_cast<int>(first_channel % 64);
    e.owns_word = extent.owns_words;
    if (e.y == nullptr && !e.has_slope && e.has_clip) fold_clip(&e);
  }
  return e;
}

}  // namespace dirnet
