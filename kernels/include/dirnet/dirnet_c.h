/* C interface to the kernels of the library but the stem's, for trainings, tests and measurements from other
   languages. */
#ifndef DIRNET_DIRNET_C_H_
#define DIRNET_DIRNET_C_H_

#include <stdint.h>

#if defined(_WIN32)
#define DIRNET_EXPORT __declspec(dllexport)
#else
#define DIRNET_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum dirnet_status {
  DIRNET_OK = 0,
  DIRNET_ISA_UNAVAILABLE = 1, /* unknown number, not built, or not supported by this CPU */
  /* A null pointer that must be set, or an impossible shape: its numbers stay below 2^31, as do the taps of
     an output. Activations and their gradients may be null where they have no elements. */
  DIRNET_BAD_ARGUMENT = 2,
  DIRNET_OUT_OF_MEMORY = 3
};

/* ISA numbers run from 0 to dirnet_isa_count() - 1: reference, portable, avx2, avx512, neon. */
DIRNET_EXPORT int dirnet_isa_count(void);
DIRNET_EXPORT const char* dirnet_isa_name(int isa); /* null for an unknown number */
DIRNET_EXPORT int dirnet_isa_built(int isa);
DIRNET_EXPORT int dirnet_isa_supported(int isa);

/* The ISA that the kernels run with (see DIRNET_ISA), or -1 when DIRNET_ISA cannot be obeyed. */
DIRNET_EXPORT int dirnet_chosen_isa(void);
/* Why dirnet_chosen_isa() is -1, written to `text` (always terminated); the full length is returned, 0 = no
 * error. */
DIRNET_EXPORT int64_t dirnet_chosen_isa_error(char* text, int64_t capacity);

/* x (pixels, channels), threshold (channels) -> bits (pixels, ceil(channels / 64)). */
DIRNET_EXPORT int dirnet_binarize(int isa, const float* x, int64_t pixels, int64_t channels,
                                  const float* threshold, uint64_t* bits, int threads);

/* shape: batch, in_h, in_w, in_c, out_c, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left,
   pad_bottom, pad_right, dilation_h, dilation_w, group. slope, residual, threshold, y and bits may be null
   (see dirnet.h). */
DIRNET_EXPORT int dirnet_binary_conv2d(int isa, const uint64_t* input, const uint64_t* weights,
                                       const int64_t shape[16], const float* scale, const float* bias,
                                       const float* slope, const float* residual, float clip_min,
                                       float clip_max, const float* threshold, float* y, uint64_t* bits,
                                       int threads);

/* shape: batch, in_h, in_w, channels, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h,
   dilation_w, out_h, out_w. */
DIRNET_EXPORT int dirnet_binary_max_pool2d(const uint64_t* input, const int64_t shape[14], uint64_t* output,
                                           int threads);

/* Calls work(arg) on each of `threads` threads at once and returns when all are done: GOMP_parallel is one,
   with `flags` 0. A caller whose own threads spin between their tasks lends them in this way; others beside
   them would wait for a core. Null stands for threads that live for one call. */
typedef void (*dirnet_fork)(void (*work)(void* arg), void* arg, unsigned threads, unsigned flags);

/* What a training computes with the kernels (see training.h). Types: 0 float32, 1 bfloat16. Activations: 0
   none, 1 PReLU, 2 clip. dirnet_training_built is 0 for an ISA that has none of the four functions. */
DIRNET_EXPORT int dirnet_training_built(int isa);

/* x (N, H, W, C), weights (O, kh, kw, C / group) of +-s, y (N, Ho, Wo, O); shape as in dirnet_binary_conv2d.
 */
DIRNET_EXPORT int dirnet_sign_conv2d(int isa, int x_type, const void* x, const float* threshold,
                                     const float* weights, const int64_t shape[16], int y_type, void* y,
                                     int threads, dirnet_fork fork);

/* The gradients of sign(x - threshold) (N, H, W, C), of y_gradient's type, and of weights, from y_gradient
   (N, Ho, Wo, O), rounded as training.h says. DIRNET_BAD_ARGUMENT also where the shape is too large for that.
 */
DIRNET_EXPORT int dirnet_sign_conv2d_backward(int isa, int x_type, const void* x, const float* threshold,
                                              const float* weights, const int64_t shape[16],
                                              int gradient_type, const void* y_gradient, void* signs_gradient,
                                              float* weights_gradient, int threads, dirnet_fork fork);

struct dirnet_tail {
  int64_t pixels;
  int64_t channels;
  int type;
  int activation;
  const void* x;
  const void* residual; /* may be null */
  const float* gain;
  const float* offset;
  const float* shift; /* may be null */
  const float* slope; /* with PReLU */
  float epsilon;
  float clip_min;
  float clip_max;
};

DIRNET_EXPORT int dirnet_norm_tail(int isa, const struct dirnet_tail* tail, void* y, float* mean,
                                   float* variance, int threads, dirnet_fork fork);

/* The gradients of x, residual (where there is one), gain, offset and slope (with PReLU). */
DIRNET_EXPORT int dirnet_norm_tail_backward(int isa, const struct dirnet_tail* tail, const float* mean,
                                            const float* variance, const void* y_gradient, void* x_gradient,
                                            void* residual_gradient, float* gain_gradient,
                                            float* offset_gradient, float* slope_gradient, int threads,
                                            dirnet_fork fork);

/* Repeats the operations of an inner loop on registers alone, `steps` times; kind 0 is the ISA's binary
   micro-kernel, 1 products of bytes, 2 fused multiply-adds of floats. Returns the multiply-adds done, 0 where
   there is no such loop. */
DIRNET_EXPORT int64_t dirnet_run_peak(int isa, int kind, int64_t steps);

#ifdef __cplusplus
}
#endif

#endif /* DIRNET_DIRNET_C_H_ */
