// Softmax of rows: the same bits at each level, close to f64.
#include "kernels/softmax.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstring>
#include <vector>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace {

std::vector<double> exact(const std::vector<double>& x) {
  const double most = *std::max_element(x.begin(), x.end());
  std::vector<double> y(x.size());
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += y[i] = std::exp(x[i] - most);
  for (double& v : y) v /= sum;
  return y;
}

}  // namespace

TEST_CASE("softmax: each level gives the bits of the first, near f64", "[softmax]") {
  std::mt19937 rng(6);
  for (int64_t n = 1; n <= 210; ++n) {
    const Edge edge = n % 2 ? Edge::kStart : Edge::kEnd;
    Guarded<float> src(n, edge), mask(n, edge), scratch(n, edge);
    std::vector<double> x(static_cast<size_t>(n));
    SoftmaxParams p;
    p.input_scale = 0.25f;
    for (int64_t i = 0; i < n; ++i) {
      src[i] = random_float(rng, -40.f, 40.f);
      mask[i] = rng() % 4 == 0 && i > 0 ? -INFINITY : random_float(rng, -1.f, 1.f);
      x[static_cast<size_t>(i)] = double{src[i]} * 0.25 + mask[i];
    }
    const std::vector<double> expected = exact(x);
    std::vector<float> first;
    std::vector<uint8_t> first_bytes;
    for (Isa isa : kernel_levels()) {
      const auto run = softmax_kernels(isa).row;
      Guarded<float> y(n, edge);
      Guarded<uint8_t> bytes(n, edge);
      SoftmaxParams q = p;
      q.output_dtype = n % 3 ? DType::qu8 : DType::qs8;
      q.inverse_scale = 255.f;
      q.output_zero_point = quant_min(q.output_dtype);
      {
        const HostileFloatEnv env;
        run(p, src.data(), mask.data(), n, scratch.data(), y.data());
        run(q, src.data(), mask.data(), n, scratch.data(), bytes.data());
        REQUIRE(env.intact());
      }
      double worst = 0, worst_step = 0;
      for (int64_t i = 0; i < n; ++i) {
        const double e = expected[static_cast<size_t>(i)];
        worst = std::max(worst, std::fabs(y[i] - e));
        const int value = q.output_dtype == DType::qs8 ? static_cast<int8_t>(bytes[i]) : bytes[i];
        worst_step = std::max(worst_step, std::fabs(value - q.output_zero_point - 255 * e));
      }
      INFO("n " << n);
      CHECK(worst < 3e-6);
      CHECK(worst_step < 0.501);
      if (first.empty()) {
        first.assign(y.begin(), y.end());
        first_bytes.assign(bytes.begin(), bytes.end());
      }
      CHECK(std::memcmp(first.data(), y.data(), static_cast<size_t>(n) * 4) == 0);
      CHECK(std::equal(bytes.begin(), bytes.end(), first_bytes.begin()));
    }
  }
}

TEST_CASE("softmax: inputs of each dtype are read as their real values", "[softmax]") {
  std::mt19937 rng(7);
  for (Isa isa : kernel_levels())
    for (int64_t n : {1, 5, 16, 33, 130}) {
      Guarded<uint8_t> bytes(n);
      Guarded<uint16_t> halves(n);
      Guarded<float> scratch(n), y(n), from_floats(n);
      std::vector<float> x(static_cast<size_t>(n));
      for (DType d : {DType::qu8, DType::qs8, DType::bf16}) {
        SoftmaxParams p;
        p.input_dtype = d;
        p.input_scale = 0.125f;
        p.input_zero_point = d == DType::bf16 ? 0 : 9;
        for (int64_t i = 0; i < n; ++i) {
          bytes[i] = static_cast<uint8_t>(rng());
          halves[i] = to_bf16(random_float(rng, -30.f, 30.f));
          const int q = d == DType::qs8 ? static_cast<int8_t>(bytes[i]) : bytes[i];
          const float v = d == DType::bf16 ? from_bf16(halves[i]) : static_cast<float>(q - 9);
          x[static_cast<size_t>(i)] = v * 0.125f;
        }
        const void* src = d == DType::bf16 ? static_cast<void*>(halves.data()) : bytes.data();
        softmax_kernels(isa).row(p, src, nullptr, n, scratch.data(), y.data());
        softmax_kernels(isa).row({}, x.data(), nullptr, n, scratch.data(), from_floats.data());
        CHECK(std::memcmp(y.data(), from_floats.data(), static_cast<size_t>(n) * 4) == 0);
      }
    }
}
