// The weights of a binary convolution or matrix product, checked, and repacked for the ISA.
#ifndef DIRNET_ONNXRUNTIME_WEIGHTS_H_
#define DIRNET_ONNXRUNTIME_WEIGHTS_H_

#include "host.h"

namespace dirnet::ort {

// Checks `weights` (O, ...; words) against `shape`, whose out_c it sets, and repacks it.
// `dims` are the extents that it must have after the first.
PackedWeights checked_weights(Isa isa, const Tensor& weights, const std::vector<int64_t>& dims,
                              Conv2dShape* shape);

}  // namespace dirnet::ort

#endif  // DIRNET_ONNXRUNTIME_WEIGHTS_H_
