#ifndef DIRNET_SRC_DISPATCH_KERNEL_TABLE_H_
#define DIRNET_SRC_DISPATCH_KERNEL_TABLE_H_

#include "dirnet/dirnet.h"
#include "driver/stem_tile.h"
#include "driver/tile.h"

namespace dirnet {

// The micro-kernels of an ISA; null for kReference, which has none, and for what was not built.
const Kernels* kernels_of(Isa isa);
const StemKernels* stem_kernels_of(Isa isa);

}  // namespace dirnet

#endif  // DIRNET_SRC_DISPATCH_KERNEL_TABLE_H_
