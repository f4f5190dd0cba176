// The shared vectors of the binary conventions (vectors/binary_conventions.json) on every ISA of this
// machine.
#include <fstream>
#include <iterator>
#include <vector>

#include "conv_case.h"
#include "json.h"

namespace dirnet {
namespace test {

namespace {

std::vector<uint64_t> words_of(const Json& array) {
  std::vector<uint64_t> words;
  for (const Json& item : array.items) words.push_back(std::strtoull(item.text.c_str(), nullptr, 16));
  return words;
}

std::vector<int64_t> integers_of(const Json& array) {
  std::vector<int64_t> integers;
  for (const Json& item : array.items) integers.push_back(std::strtoll(item.text.c_str(), nullptr, 10));
  return integers;
}

std::vector<float> floats_of(const Json& array) {
  std::vector<float> floats;
  for (const Json& item : array.items) floats.push_back(std::strtof(item.text.c_str(), nullptr));
  return floats;
}

std::vector<Isa> all_isas() {
  std::vector<Isa> isas = kernels_to_test();
  isas.push_back(Isa::kReference);
  return isas;
}

void check_binarize(Isa isa, const Json& vector) {
  const std::vector<float> x = floats_of(vector["x"]);
  const std::vector<float> threshold = floats_of(vector["threshold"]);
  const std::vector<uint64_t> expected = words_of(vector["bits"]);
  std::vector<uint64_t> bits(expected.size(), ~uint64_t{0});
  binarize(isa, x.data(), 1, static_cast<int64_t>(x.size()), threshold.data(), bits.data(), Parallel{});
  CHECK(!x.empty() && bits == expected, std::string(isa_name(isa)) + ": " + vector["name"].text);
}

void check_conv2d(Isa isa, const std::string& name, const Conv2dShape& s, const std::vector<uint64_t>& input,
                  const std::vector<uint64_t>& weights, const std::vector<int64_t>& expected) {
  const std::vector<float> ones(static_cast<size_t>(s.out_c), 1.0F);
  const std::vector<float> zeros(static_cast<size_t>(s.out_c), 0.0F);
  std::vector<float> y(expected.size(), -12345.0F);
  CHECK(s.batch * s.out_h() * s.out_w() * s.out_c == static_cast<int64_t>(expected.size()),
        "output shape: " + name);
  Epilogue e;
  e.scale = ones.data();
  e.bias = zeros.data();
  e.y = y.data();
  binary_conv2d(pack_weights(isa, weights.data(), s), input.data(), s, e, Parallel{});
  bool same = true;
  for (size_t i = 0; i < y.size(); ++i) same = same && y[i] == static_cast<float>(expected[i]);
  CHECK(same, std::string(isa_name(isa)) + ": " + name);
}

void check_all(const Json& vectors) {
  CHECK(
      !vectors["binarize"].items.empty() && !vectors["dot"].items.empty() && !vectors["conv2d"].items.empty(),
      "vectors of all three kinds");
  for (const Isa isa : all_isas()) {
    for (const Json& v : vectors["binarize"].items) check_binarize(isa, v);
    for (const Json& v : vectors["dot"].items) {
      const int64_t channels = std::strtoll(v["channels"].text.c_str(), nullptr, 10);
      const Conv2dShape s{1, 1, 1, channels, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1};
      check_conv2d(isa, v["name"].text, s, words_of(v["a"]), words_of(v["w"]),
                   {std::strtoll(v["dot"].text.c_str(), nullptr, 10)});
    }
    for (const Json& v : vectors["conv2d"].items) {
      const std::vector<int64_t> f = integers_of(v["shape"]);
      if (!CHECK(f.size() == 16, "16 shape fields: " + v["name"].text)) continue;
      const Conv2dShape s{f[0], f[1], f[2],  f[3],  f[4],  f[5],  f[6],  f[7],
                          f[8], f[9], f[10], f[11], f[12], f[13], f[14], f[15]};
      check_conv2d(isa, v["name"].text, s, words_of(v["input"]), words_of(v["weights"]),
                   integers_of(v["dot"]));
    }
  }
}

}  // namespace

}  // namespace test
}  // namespace dirnet

int main() {
  using namespace dirnet::test;
  std::ifstream file(DIRNET_TEST_VECTORS);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  Json vectors;
  if (CHECK(JsonReader(text).read(&vectors), "cannot read " DIRNET_TEST_VECTORS)) check_all(vectors);
  return finish("vectors");
}
