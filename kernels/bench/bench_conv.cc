// Times every ISA of this machine on a list of shapes, one thread:
//   bench_conv SHAPES_FILE [ISA] [MILLISECONDS_PER_FIGURE]
// GMAC/s counts the taps inside the image only. "bound" is the share of what the ISA's inner arithmetic alone
// reaches on this core at that moment (dirnet/peak.h), measured in turn with the kernels so that both see the
// same clock.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "dirnet/dirnet.h"
#include "dirnet/peak.h"

namespace dirnet {
namespace bench {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct NamedShape {
  std::string name;
  Conv2dShape shape;
};

// "3" is 3 by 3, "1x7" is 1 high and 7 wide.
bool read_pair(const std::string& text, int64_t* height, int64_t* width) {
  char* end = nullptr;
  *height = *width = std::strtoll(text.c_str(), &end, 10);
  if (end != text.c_str() && *end == 'x') *width = std::strtoll(end + 1, &end, 10);
  return end != text.c_str() && *end == '\0';
}

std::vector<NamedShape> read_shapes(const char* path) {
  std::vector<NamedShape> shapes;
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream fields(line);
    NamedShape s{};
    std::string kernel, stride, pad;
    std::string dilation = "1";
    Conv2dShape& c = s.shape;
    fields >> s.name >> c.in_c >> c.in_h >> c.in_w >> c.out_c >> kernel >> stride >> pad >> c.group;
    const bool read = !fields.fail();
    fields >> dilation;
    c.batch = 1;
    if (!read || !read_pair(kernel, &c.kernel_h, &c.kernel_w) ||
        !read_pair(stride, &c.stride_h, &c.stride_w) || !read_pair(pad, &c.pad_top, &c.pad_left) ||
        !read_pair(dilation, &c.dilation_h, &c.dilation_w)) {
      std::fprintf(stderr, "%s: cannot read the line: %s\n", path, line.c_str());
      std::exit(2);
    }
    c.pad_bottom = c.pad_top;
    c.pad_right = c.pad_left;
    shapes.push_back(s);
  }
  return shapes;
}

// Taps inside the image, summed over the output positions of one axis.
int64_t valid_taps(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
  int64_t taps = 0;
  for (int64_t o = 0; o < out; ++o) {
    for (int64_t k = 0; k < kernel; ++k) {
      const int64_t i = o * stride - pad + k * dilation;
      taps += i >= 0 && i < in ? 1 : 0;
    }
  }
  return taps;
}

int64_t valid_macs(const Conv2dShape& s) {
  return s.batch * valid_taps(s.in_h, s.out_h(), s.kernel_h, s.stride_h, s.pad_top, s.dilation_h) *
         valid_taps(s.in_w, s.out_w(), s.kernel_w, s.stride_w, s.pad_left, s.dilation_w) *
         (s.in_c / s.group) * s.out_c;
}

struct Operands {
  std::vector<uint64_t> input, weights, bits;
  std::vector<float> scale, bias, slope, threshold, residual, y;

  explicit Operands(const Conv2dShape& s) {
    const auto words = [](int64_t channels) { return (channels + 63) / 64; };
    const int64_t out_pixels = s.batch * s.out_h() * s.out_w();
    input.resize(static_cast<size_t>(s.batch * s.in_h * s.in_w * words(s.in_c)));
    weights.resize(static_cast<size_t>(s.out_c * s.kernel_h * s.kernel_w * words(s.in_c / s.group)));
    bits.resize(static_cast<size_t>(out_pixels * words(s.out_c)));
    uint64_t state = 88172645463325252ULL;
    for (std::vector<uint64_t>* tensor : {&input, &weights}) {
      for (uint64_t& word : *tensor) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word = state;
      }
    }
    const size_t channels = static_cast<size_t>(s.out_c);
    scale.assign(channels, 0.01F);
    bias.assign(channels, 0.1F);
    slope.assign(channels, 0.25F);
    threshold.assign(channels, 0.05F);
    residual.assign(static_cast<size_t>(out_pixels * s.out_c), 0.5F);
    y.assign(residual.size(), 0.0F);
  }

  Epilogue bits_only() {
    Epilogue e;
    e.scale = scale.data();
    e.bias = bias.data();
    e.threshold = threshold.data();
    e.bits = bits.data();
    return e;
  }

  Epilogue residual_float_and_bits() {
    Epilogue e = bits_only();
    e.slope = slope.data();
    e.residual = residual.data();
    e.y = y.data();
    return e;
  }
};

// The time of one call: of many short blocks, the one that a tenth of them beat. What else runs on the
// machine makes blocks slower and never faster, so that a low quantile is what a quiet machine would show.
template <typename Call>
double undisturbed_seconds(double budget, const Call& call) {
  const Clock::time_point probe = Clock::now();
  call();
  const int repeats = std::max(1, static_cast<int>(0.0003 / std::max(seconds_since(probe), 1e-7)));
  std::vector<double> times;
  const Clock::time_point start = Clock::now();
  while (times.size() < 10 || seconds_since(start) < budget) {
    const Clock::time_point block = Clock::now();
    for (int i = 0; i < repeats; ++i) call();
    times.push_back(seconds_since(block) / repeats);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 10];
}

// Multiply-adds each second of the ISA's inner loop, 0 where it has none.
double peak_rate(Isa isa, double budget) {
  if (run_peak(isa, PeakKind::kBinary, 1) == 0) return 0.0;
  int64_t macs = 0;
  const double seconds = undisturbed_seconds(budget, [&] { macs = run_peak(isa, PeakKind::kBinary, 2000); });
  return static_cast<double>(macs) / seconds;
}

void bench_shape(Isa isa, const NamedShape& named, double budget) {
  const Conv2dShape& s = named.shape;
  Operands operands(s);
  const PackedWeights packed = pack_weights(isa, operands.weights.data(), s);
  const double macs = static_cast<double>(valid_macs(s));
  const Epilogue epilogues[] = {operands.bits_only(), operands.residual_float_and_bits()};
  std::printf("%-9s %-22s", isa_name(isa), named.name.c_str());
  for (const Epilogue& e : epilogues) {
    const double before = peak_rate(isa, budget / 4);
    const double seconds =
        undisturbed_seconds(budget, [&] { binary_conv2d(packed, operands.input.data(), s, e, Parallel{}); });
    const double after = peak_rate(isa, budget / 4);
    std::printf(" %9.1f %8.0f", seconds * 1e6, macs / seconds * 1e-9);
    if (before > 0) {
      std::printf(" %5.1f %%", 100.0 * macs / seconds / std::max(before, after));
    } else {
      std::printf(" %7s", "-");
    }
  }
  std::printf("\n");
}

}  // namespace

}  // namespace bench
}  // namespace dirnet

int main(int argc, char** argv) {
  using namespace dirnet;
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_conv SHAPES_FILE [ISA or all] [MILLISECONDS_PER_FIGURE]\n");
    return 2;
  }
  const std::vector<bench::NamedShape> shapes = bench::read_shapes(argv[1]);
  const std::string wanted = argc > 2 ? argv[2] : "all";
  const double budget = (argc > 3 ? std::atof(argv[3]) : 200.0) * 1e-3;
  for (const Isa isa : {Isa::kAvx512, Isa::kAvx2, Isa::kNeon, Isa::kPortable}) {
    if (!isa_built(isa) || !isa_supported(isa) || (wanted != "all" && wanted != isa_name(isa))) continue;
    const double peak = bench::peak_rate(isa, budget);
    if (peak > 0) std::printf("%s bound: %.0f GMAC/s\n", isa_name(isa), peak * 1e-9);
    std::printf("%-9s %-22s %26s %26s\n", "", "", "bits out", "residual, float + bits out");
    std::printf("%-9s %-22s %9s %8s %7s %9s %8s %7s\n", "isa", "shape", "us", "GMAC/s", "bound", "us",
                "GMAC/s", "bound");
    for (const bench::NamedShape& shape : shapes) bench::bench_shape(isa, shape, budget);
  }
  return 0;
}
