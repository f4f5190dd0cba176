#include "checks.h"

#include <string>

namespace dirnet::ort {
namespace {

std::string describe_expected(const int64_t* expected, size_t rank) {
  std::string text = "(";
  for (size_t i = 0; i < rank; ++i) {
    text += i == 0 ? "" : ", ";
    text += expected[i] < 0 ? "any" : std::to_string(expected[i]);
  }
  return text + ")";
}

void check_dims(const Tensor& tensor, const int64_t* expected, size_t rank) {
  bool fits = tensor.dims.size() == rank;
  for (size_t i = 0; fits && i < rank; ++i) {
    fits =
        expected[i] < 0 ? tensor.dims[i] >= 0 && tensor.dims[i] <= kLargest : tensor.dims[i] == expected[i];
  }
  if (!fits) {
    throw Failure("'" + std::string(tensor.name) + "' has shape " + describe(tensor.dims) + " instead of " +
                  describe_expected(expected, rank));
  }
}

}  // namespace

void check_dims(const Tensor& tensor, std::initializer_list<int64_t> expected) {
  check_dims(tensor, expected.begin(), expected.size());
}

void check_dims(const Tensor& tensor, const std::vector<int64_t>& expected) {
  check_dims(tensor, expected.data(), expected.size());
}

void check_length(const Tensor& tensor, int64_t length) { check_dims(tensor, {length}); }

void check_spare_bits(const Tensor& tensor, int64_t channels) {
  if (channels % 64 == 0) return;
  const int64_t words = words_for(channels);
  const int64_t rows = element_count(tensor.dims, tensor.name) / words;
  const uint64_t spare = ~uint64_t{0} << (channels % 64);
  const uint64_t* last = tensor.words() + words - 1;
  uint64_t found = 0;
  for (int64_t row = 0; row < rows; ++row) found |= last[row * words];
  if ((found & spare) != 0) {
    throw Failure("'" + std::string(tensor.name) + "' has bits set beyond its " + std::to_string(channels) +
                  " channels; it was not packed for this operator or is damaged");
  }
}

int64_t element_count(const std::vector<int64_t>& dims, const char* what) {
  int64_t count = 1;
  for (const int64_t dim : dims) {
    if (dim < 0) throw Failure("'" + std::string(what) + "' has the impossible shape " + describe(dims));
    if (dim == 0) return 0;
  }
  for (const int64_t dim : dims) {
    if (count > INT64_MAX / 8 / dim)
      throw Failure("'" + std::string(what) + "' is too large: " + describe(dims));
    count *= dim;
  }
  return count;
}

}  // namespace dirnet::ort
