#define DIRNET_REGISTER_BYTES 32
#include "training/loops_of_isa.h"

namespace dirnet {

const TrainingLoops kAvx2Training = kLoops;

}  // namespace dirnet
