// One convolution with its operands, and how to run it.
#ifndef DIRNET_TESTS_CONV_CASE_H_
#define DIRNET_TESTS_CONV_CASE_H_

#include <string>
#include <vector>

#include "check.h"
#include "dirnet/dirnet.h"
#include "guarded.h"

namespace dirnet {
namespace test {

struct EpilogueKind {
  bool residual = false;
  bool clip = false;
  bool slope = false;
  bool y = true;
  bool bits = false;
};
constexpr int kEpilogueKinds = 24;  // (y, bits or both) x residual x clip x slope
EpilogueKind epilogue_kind(int index);

int64_t words_for(int64_t channels);

struct ConvCase {
  Conv2dShape shape;
  EpilogueKind kind;
  std::vector<uint64_t> input;
  std::vector<uint64_t> weights;
  std::vector<float> scale, bias, slope, residual, threshold;
  float clip_min, clip_max;

  std::string name() const;
};

struct ConvResult {
  Guarded<float> y;
  Guarded<uint64_t> bits;
};

// Random operands, with NaN, infinities and signed zeros among the epilogue's now and then.
ConvCase make_case(const Conv2dShape& shape, const EpilogueKind& kind, Random& random);

// Where the floats go: beside the residual, or over it.
enum class Sum { kApart, kInPlace };

ConvResult run_case(const ConvCase& c, Isa isa, const Parallel& parallel, Sum sum = Sum::kApart);

// Direct convolution of +-1.0 floats padded with true zeros: shares no code with the kernels or the
// reference.
ConvResult run_oracle(const ConvCase& c);

// Bit-for-bit equality of what the case asks for, and untouched guard zones.
bool same_result(const ConvCase& c, const ConvResult& expected, const ConvResult& actual,
                 std::string* difference);

// ISAs that are built and that this CPU supports, the reference left out.
std::vector<Isa> kernels_to_test();
// The same with the reference, first.
std::vector<Isa> isas_to_test();

}  // namespace test
}  // namespace dirnet

#endif  // DIRNET_TESTS_CONV_CASE_H_
