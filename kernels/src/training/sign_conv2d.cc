#include <atomic>
#include <cmath>

#include "dirnet/training.h"
#include "dispatch/kernel_table.h"
#include "driver/layout.h"
#include "driver/memory.h"
#include "driver/parallel.h"

namespace dirnet {

namespace {

// Values of the larger of a few images' input and output: they stay near a core from one step to the next.
constexpr int64_t kNearValues = 128 * 1024;

}  // namespace

bool training_built(Isa isa) { return training_loops_of(isa) != nullptr; }

bool sign_conv2d(Isa isa, FloatType x_type, const void* x, const float* threshold, const float* weights,
                 const Conv2dShape& shape, FloatType y_type, void* y, const Parallel& parallel) {
  const TrainingLoops& loops = *training_loops_of(isa);
  const int64_t group_channels = shape.in_c / shape.group;
  const int64_t taps = shape.kernel_h * shape.kernel_w;
  const int64_t weight_words = shape.out_c * taps * words_for(group_channels);
  const int64_t vector_floats = shape.out_c + (shape.out_c > group_channels ? shape.out_c : group_channels);
  const AlignedBuffer vectors(static_cast<size_t>(vector_floats) * sizeof(float));
  const AlignedBuffer words(static_cast<size_t>(weight_words) * sizeof(uint64_t));
  if (vectors.data() == nullptr || words.data() == nullptr) return false;
  float* scale = reinterpret_cast<float*>(vectors.data());
  const float* zeros = scale + shape.out_c;
  for (int64_t o = 0; o < shape.out_c; ++o) scale[o] = std::fabs(weights[o * taps * group_channels]);
  uint64_t* weight_bits = reinterpret_cast<uint64_t*>(words.data());
  binarize(isa, weights, shape.out_c * taps, group_channels, zeros, weight_bits, Parallel{});
  const PackedWeights packed = pack_weights(isa, weight_bits, shape);
  if (packed.empty()) return false;

  const int64_t in_pixels = shape.in_h * shape.in_w;
  const int64_t out_values = shape.out_h() * shape.out_w() * shape.out_c;
  const int64_t in_values = in_pixels * shape.in_c;
  const int64_t largest = in_values > out_values ? in_values : out_values;
  const int64_t images = largest < kNearValues ? kNearValues / largest : 1;
  std::atomic<bool> enough{true};
  for_each_chunk(parallel, shape.batch, images, [&](int64_t begin, int64_t end) {
    Conv2dShape part = shape;
    part.batch = end - begin;
    const int64_t bit_words = part.batch * in_pixels * words_for(shape.in_c);
    const bool converts_x = x_type == FloatType::kBfloat16, converts_y = y_type == FloatType::kBfloat16;
    const int64_t scratch_floats =
        (converts_x ? part.batch * in_values : 0) + (converts_y ? part.batch * out_values : 0);
    const AlignedBuffer bits(static_cast<size_t>(bit_words) * sizeof(uint64_t), Contents::kUndefined);
    const AlignedBuffer scratch(static_cast<size_t>(scratch_floats + 1) * sizeof(float),
                                Contents::kUndefined);
    if (bits.data() == nullptr || scratch.data() == nullptr) {
      enough = false;
      return;
    }
    float* free_floats = reinterpret_cast<float*>(scratch.data());
    const void* from = static_cast<const char*>(x) + begin * in_values * value_bytes(x_type);
    const float* floats = static_cast<const float*>(from);
    if (converts_x) {
      loops.widen(static_cast<const uint16_t*>(from), part.batch * in_values, free_floats);
      floats = free_floats;
      free_floats += part.batch * in_values;
    }
    uint64_t* input = reinterpret_cast<uint64_t*>(bits.data());
    binarize(isa, floats, part.batch * in_pixels, shape.in_c, threshold, input, Parallel{});
    void* to = static_cast<char*>(y) + begin * out_values * value_bytes(y_type);
    Epilogue epilogue;
    epilogue.scale = scale;
    epilogue.bias = zeros;
    epilogue.y = converts_y ? free_floats : static_cast<float*>(to);
    if (!binary_conv2d(packed, input, part, epilogue, Parallel{})) enough = false;
    if (converts_y) loops.narrow(free_floats, part.batch * out_values, static_cast<uint16_t*>(to));
  });
  return enough;
}

}  // namespace dirnet
