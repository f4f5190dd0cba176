#ifndef DIRNET_SRC_DISPATCH_KERNEL_TABLE_H_
#define DIRNET_SRC_DISPATCH_KERNEL_TABLE_H_

#include "dirnet/dirnet.h"
#include "driver/peak_loops.h"
#include "driver/stem_tile.h"
#include "driver/tile.h"
#include "training/loops.h"

namespace dirnet {

// What an ISA's own files offer; nulls for kReference, which has none, and for what was not built.
struct IsaTable {
  const Kernels* kernels;
  const StemKernels* stem;
  const PeakLoops* peaks;
  const TrainingLoops* training;
};

IsaTable table_of(Isa isa);

// Those of kPortable for kReference, whose results they share.
const TrainingLoops* training_loops_of(Isa isa);

inline const Kernels* kernels_of(Isa isa) { return table_of(isa).kernels; }
inline const StemKernels* stem_kernels_of(Isa isa) { return table_of(isa).stem; }

}  // namespace dirnet

#endif  // DIRNET_SRC_DISPATCH_KERNEL_TABLE_H_
