// The inner loops behind dirnet/training.h, of one ISA. Plain data and functions only, for the same reason as
// in driver/tile.h.
#ifndef DIRNET_SRC_TRAINING_LOOPS_H_
#define DIRNET_SRC_TRAINING_LOOPS_H_

#include <stdint.h>

#include "training/gradient_loops.h"

namespace dirnet {

// Channels that a loop works on at once.
constexpr int kTailLanes = 16;
// As many as TailActivation has; arrays of loops are in its order.
constexpr int kTailActivations = 3;

// The values of up to kTailLanes neighbouring channels of a tail; entries past `channels` are zero.
struct TailLanes {
  int channels;    // 1 .. kTailLanes
  int64_t stride;  // values from one pixel to the next, in every tensor
  bool bfloat16;   // the tensors' type: this, or float32
  float clip_min;
  float clip_max;
  alignas(64) float mean[kTailLanes];
  alignas(64) float scale[kTailLanes];  // gain / sqrt(variance + epsilon)
  alignas(64) float offset[kTailLanes];
  alignas(64) float shift[kTailLanes];
  alignas(64) float slope[kTailLanes];
  // Backward: x's gradient is scale * (g - gradient_mean - (x - mean) * gradient_slope).
  alignas(64) float gradient_mean[kTailLanes];
  alignas(64) float gradient_slope[kTailLanes];
};

// Sums over the pixels of one call.
struct TailMoments {
  alignas(64) float mean[kTailLanes];
  alignas(64) float squares[kTailLanes];  // of the distances from that mean
};

struct TailSums {
  alignas(64) float gradient[kTailLanes];  // of g
  alignas(64) float centred[kTailLanes];   // of g * (x - mean)
  alignas(64) float slope[kTailLanes];     // of dL/dy * v where v <= 0
};

using TailMomentsLoop = void (*)(const TailLanes& t, const void* x, int64_t pixels, TailMoments* moments);
using TailForwardLoop = void (*)(const TailLanes& t, const void* x, const void* residual, int64_t pixels,
                                 void* y);
// Writes g = dL/dv, the gradient behind the activation.
using TailSumsLoop = void (*)(const TailLanes& t, const void* x, const void* residual, const void* y_gradient,
                              int64_t pixels, void* g, TailSums* sums);
// `x_gradient` may be g itself.
using TailBackwardLoop = void (*)(const TailLanes& t, const void* x, const void* g, int64_t pixels,
                                  void* x_gradient);

struct TrainingLoops {
  void (*widen)(const uint16_t* values, int64_t count, float* wide);
  void (*narrow)(const float* values, int64_t count, uint16_t* narrowed);
  TailMomentsLoop moments;
  TailForwardLoop forward[kTailActivations];
  TailSumsLoop backward_sums[kTailActivations];
  TailBackwardLoop backward;
  GradientLoops gradients;
};

extern const TrainingLoops kPortableTraining;
extern const TrainingLoops kAvx2Training;
extern const TrainingLoops kAvx512Training;
extern const TrainingLoops kNeonTraining;

}  // namespace dirnet

#endif  // DIRNET_SRC_TRAINING_LOOPS_H_
