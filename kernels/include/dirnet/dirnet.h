// Binary (1-bit x 1-bit) convolution kernels, independent of any framework.
//
// Conventions, shared with the trainer and the exporter:
//   a bit      1 means +1, 0 means -1
//   sign       x >= threshold gives 1, else 0; NaN gives 0, and -0.0 compares equal to +0.0
//   layout     activations (N, H, W, ceil(C / 64)) uint64, weights (O, kh, kw, ceil(C / group / 64)) uint64,
//              channels least significant bit first; spare bits are 0 in every operand and every result
//   dot        K - 2 * popcount(a xor w) over the taps that fall inside the image; padded taps count nothing,
//              so K = (channels / group) * (number of valid taps) is smaller at the border
//
// No function here throws. Shapes and pointers are the caller's to check: each function says what it assumes.
#ifndef DIRNET_DIRNET_H_
#define DIRNET_DIRNET_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

namespace dirnet {

// kAvx512 stands for AVX-512 F, BW, DQ, VL, VPOPCNTDQ and VNNI together.
enum class Isa : int { kReference, kPortable, kAvx2, kAvx512, kNeon };
constexpr int kIsaCount = 5;

// "reference", "portable", "avx2", "avx512" or "neon".
const char* isa_name(Isa isa);
// Whether the kernels of `isa` were compiled into this library.
bool isa_built(Isa isa);
// Whether this CPU has the instructions and the operating system saves their registers.
bool isa_supported(Isa isa);
// The fastest ISA that is built and supported, or the one that the environment variable DIRNET_ISA names.
// Returns false, and one sentence in `error`, when DIRNET_ISA names what is unknown, not built or not
// supported.
bool choose_isa(Isa* chosen, std::string* error);

// One 2-D convolution; activations are NHWC. Assumed: every extent, stride, dilation and `group` is >= 1
// (batch may be 0), pads are >= 0, group divides in_c and out_c, (in_c / group) * kernel_h * kernel_w < 2^31.
struct Conv2dShape {
  int64_t batch, in_h, in_w, in_c, out_c;
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t pad_top, pad_left, pad_bottom, pad_right;
  int64_t dilation_h, dilation_w;
  int64_t group;

  int64_t out_h() const;  // 0 when the kernel does not fit into the padded image
  int64_t out_w() const;
};

// What happens to a dot product, in float32, each step rounded on its own (no fused multiply-add):
//   v = float(dot) * scale[o];  v = v + bias[o];  v = v + residual (where given);
//   v = v < clip_min ? clip_min : v;  v = v > clip_max ? clip_max : v;  v = v < 0 ? slope[o] * v : v (where
//   given); y = v;  bit = v >= threshold[o]
// At least one of y and bits is wanted; threshold is set whenever bits is. No output overlaps an input,
// except that y may be the residual itself.
struct Epilogue {
  const float* scale = nullptr;     // (O)
  const float* bias = nullptr;      // (O)
  const float* slope = nullptr;     // (O), null = none
  const float* residual = nullptr;  // (N, Ho, Wo, O), null = none
  float clip_min = -std::numeric_limits<float>::infinity();
  float clip_max = std::numeric_limits<float>::infinity();
  const float* threshold = nullptr;  // (O)
  float* y = nullptr;                // (N, Ho, Wo, O), null = no float output
  uint64_t* bits = nullptr;          // (N, Ho, Wo, ceil(O / 64)), null = no bit output
};

// How the caller runs independent work: run(context, items, task, arg) calls task(arg, i) once for every i in
// [0, items), in any order and on any threads, and returns when all are done. A null `run` means serially.
struct Parallel {
  void* context = nullptr;
  void (*run)(void* context, int64_t items, void (*task)(void* arg, int64_t item), void* arg) = nullptr;
};

// Memory aligned to 64 bytes whose contents are laid out for one ISA. Movable, not copyable.
class PackedBlock {
 public:
  PackedBlock() = default;
  PackedBlock(PackedBlock&& other) noexcept;
  PackedBlock& operator=(PackedBlock&& other) noexcept;
  PackedBlock(const PackedBlock&) = delete;
  PackedBlock& operator=(const PackedBlock&) = delete;
  ~PackedBlock();

  bool empty() const { return data_ == nullptr; }
  Isa isa() const { return isa_; }
  size_t size_bytes() const { return size_bytes_; }
  const uint8_t* data() const { return data_; }

 protected:
  // Zeroed; empty() when memory ran out.
  PackedBlock(Isa isa, size_t bytes);

  uint8_t* data_ = nullptr;

 private:
  size_t size_bytes_ = 0;
  Isa isa_ = Isa::kReference;
};

// The weights of a binary convolution.
class PackedWeights : public PackedBlock {
 public:
  PackedWeights() = default;

 private:
  friend PackedWeights pack_weights(Isa isa, const uint64_t* weights, const Conv2dShape& shape);
  using PackedBlock::PackedBlock;
};

// Repacks (O, kh, kw, ceil(C / group / 64)) weights for `isa`, which must be built; batch, in_h and in_w of
// the shape are ignored. The result is empty() when memory ran out.
PackedWeights pack_weights(Isa isa, const uint64_t* weights, const Conv2dShape& shape);

// Runs the convolution with the ISA that the weights were packed for, which must be supported; `shape` must
// be the one given to pack_weights but for batch, in_h and in_w. False (outputs unspecified) only when memory
// ran out.
bool binary_conv2d(const PackedWeights& weights, const uint64_t* input, const Conv2dShape& shape,
                   const Epilogue& epilogue, const Parallel& parallel);

// x (pixels, channels) -> bits (pixels, ceil(channels / 64)), bit = x >= threshold[channel].
void binarize(Isa isa, const float* x, int64_t pixels, int64_t channels, const float* threshold,
              uint64_t* bits, const Parallel& parallel);

// One 2-D max pooling of bits; the output extents are the caller's (ceil_mode is decided there). Same
// assumptions as Conv2dShape. pad_bottom and pad_right follow from the output extents and are not needed.
struct Pool2dShape {
  int64_t batch, in_h, in_w, channels;
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t pad_top, pad_left;
  int64_t dilation_h, dilation_w;
  int64_t out_h, out_w;
};

// The maximum of bits is their OR. Padded taps are ignored; a window without any valid tap gives 0 (-1).
void binary_max_pool2d(const uint64_t* input, const Pool2dShape& shape, uint64_t* output,
                       const Parallel& parallel);

}  // namespace dirnet

#endif  // DIRNET_DIRNET_H_
