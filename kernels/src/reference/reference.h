// The meaning of every operator, written for the eye: one bit at a time, no table, no vector, no tile.
#ifndef DIRNET_SRC_REFERENCE_REFERENCE_H_
#define DIRNET_SRC_REFERENCE_REFERENCE_H_

#include "dirnet/dirnet.h"
#include "dirnet/stem.h"

namespace dirnet {
namespace reference {

void binarize(const float* x, int64_t pixels, int64_t channels, const float* threshold, uint64_t* bits);

// `weights` as in the exported file: (O, kh, kw, ceil(C / group / 64)).
void binary_conv2d(const uint64_t* weights, const uint64_t* input, const Conv2dShape& shape,
                   const Epilogue& epilogue);

// False never: it takes no memory.
bool stem_conv2d(const PackedStem& stem, const float* x, const StemShape& shape, const StemOutputs& outputs);

}  // namespace reference
}  // namespace dirnet

#endif  // DIRNET_SRC_REFERENCE_REFERENCE_H_
