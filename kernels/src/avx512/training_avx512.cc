#define DIRNET_REGISTER_BYTES 64
#include "training/loops_of_isa.h"

namespace dirnet {

const TrainingLoops kAvx512Training = kLoops;

}  // namespace dirnet
