#define DIRNET_REGISTER_BYTES 16
#include "training/loops_of_isa.h"

namespace dirnet {

const TrainingLoops kNeonTraining = kLoops;

}  // namespace dirnet
