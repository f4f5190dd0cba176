#include "weights.h"

#include <new>
#include <string>

#include "checks.h"

namespace dirnet::ort {

PackedWeights checked_weights(Isa isa, const Tensor& weights, const std::vector<int64_t>& dims,
                              Conv2dShape* shape) {
  std::vector<int64_t> expected{-1};
  expected.insert(expected.end(), dims.begin(), dims.end());
  check_dims(weights, expected);
  shape->out_c = weights.dims[0];
  if (shape->out_c < 1 || shape->out_c % shape->group != 0) {
    throw Failure("'W' has " + std::to_string(shape->out_c) + " output channels, which group " +
                  std::to_string(shape->group) + " does not divide into equal parts");
  }
  check_spare_bits(weights, shape->in_c / shape->group);
  PackedWeights packed = pack_weights(isa, weights.words(), *shape);
  if (packed.empty()) throw std::bad_alloc();
  return packed;
}

}  // namespace dirnet::ort
