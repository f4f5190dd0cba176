// The checks that every operator makes before it touches memory.
#ifndef DIRNET_ONNXRUNTIME_CHECKS_H_
#define DIRNET_ONNXRUNTIME_CHECKS_H_

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "host.h"

namespace dirnet::ort {

// Every extent and attribute stays below this, so that sums and products of two of them fit into 64 bits.
constexpr int64_t kLargest = INT32_MAX;

inline int64_t words_for(int64_t channels) { return (channels + 63) / 64; }

// The tensor has exactly these dims; -1 stands for any extent from 0 to kLargest.
void check_dims(const Tensor& tensor, std::initializer_list<int64_t> expected);
void check_dims(const Tensor& tensor, const std::vector<int64_t>& expected);
// A 1-D tensor of `length` numbers.
void check_length(const Tensor& tensor, int64_t length);
// rows x ceil(channels / 64) words whose bits beyond `channels` are 0.
void check_spare_bits(const Tensor& tensor, int64_t channels);
// The number of elements, or Failure when it (times 8 bytes) does not fit into 63 bits.
int64_t element_count(const std::vector<int64_t>& dims, const char* what);

}  // namespace dirnet::ort

#endif  // DIRNET_ONNXRUNTIME_CHECKS_H_
