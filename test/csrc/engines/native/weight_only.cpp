// The native engine against the reference, bit for bit; input and output end, or begin, at
// pages that nobody may touch.
#include "engines/weight_only.h"

#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <random>
#include <vector>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::test;

namespace {

struct Problem {
  WeightOnlyProblem p;
  std::vector<uint8_t> weight;
  std::vector<float> scale, bias;

  Problem(std::mt19937& rng, int64_t n, int64_t k, int64_t group) {
    p.n = n;
    p.k = k;
    p.bits = group == 0 ? 8 : 4;
    p.input_bits = rng() % 3 == 0 ? 8 : 16;
    p.group = group;
    p.dtype = rng() % 2 == 0 ? DType::bf16 : DType::f32;
    weight.resize(static_cast<size_t>(n * (group == 0 ? k : (k + 1) / 2)));
    for (uint8_t& w : weight) w = static_cast<uint8_t>(rng());
    scale.resize(static_cast<size_t>(group == 0 ? n : n * p.groups()));
    for (float& s : scale) s = random_float(rng, 0.01f, 0.1f);
    p.weight = weight.data();
    p.weight_scale = scale.data();
    if (rng() % 2 == 0) {
      bias.resize(static_cast<size_t>(n));
      for (float& b : bias) b = random_float(rng, -1.f, 1.f);
      p.bias = bias.data();
    }
  }
};

void compare(std::mt19937& rng, int64_t m, int64_t n, int64_t k, int64_t group) {
  const Problem problem(rng, n, k, group);
  Result<WeightOnlyImplPtr> native = make_weight_only_native(problem.p);
  Result<WeightOnlyImplPtr> reference = make_weight_only_reference(problem.p);
  REQUIRE(native);
  REQUIRE(reference);
  const Edge edge = rng() % 2 == 0 ? Edge::kStart : Edge::kEnd;
  const int64_t element = static_cast<int64_t>(size_of(problem.p.dtype)), stride = k + rng() % 3;
  Guarded<uint8_t> input((m == 0 ? 0 : (m - 1) * stride + k) * element, edge);
  for (int64_t i = 0; i < input.size() / element; ++i) {
    float x = random_float(rng, -4.f, 4.f);
    if (rng() % 100 == 0) x *= 50.f;  // its group has two planes, those of neighbours do not
    if (i / 64 % 7 == 0) x = 0.f;
    const uint32_t bits = std::bit_cast<uint32_t>(x);
    // The upper half of a float is a bf16.
    std::memcpy(input.data() + i * element, reinterpret_cast<const char*>(&bits) + 4 - element,
                static_cast<size_t>(element));
  }
  Guarded<uint8_t> got(m * n * element, edge), want(m * n * element, edge);
  native.value()->run({m, input.data(), stride, got.data()});
  reference.value()->run({m, input.data(), stride, want.data()});
  INFO("m " << m << " n " << n << " k " << k << " group " << group << " " << native.value()->description());
  REQUIRE(std::memcmp(got.data(), want.data(), static_cast<size_t>(got.size())) == 0);
}

}  // namespace

TEST_CASE("native weight-only equals the reference", "[native][weight_only]") {
  std::mt19937 rng(5);
  const int64_t groups[] = {0, 32, 64, 128};
  const int64_t sizes[] = {1, 2, 5, 31, 63, 64, 65, 100, 129, 260};
  const int64_t rows[] = {1, 1, 2, 3, 4, 7, 12, 13, 18, 19, 36, 37, 65};
  for (int i = 0; i < 240; ++i)
    compare(rng, rows[rng() % 13], sizes[rng() % 10], sizes[rng() % 10], groups[i % 4]);
}

// Several sets of rows, and tasks of unequal size.
TEST_CASE("native weight-only, long rows and many of them", "[native][weight_only]") {
  std::mt19937 rng(6);
  for (int64_t group : {0, 128}) {
    compare(rng, 1, 320, 9000, group);
    compare(rng, 7, 320, 9000, group);
    compare(rng, 131, 70, 4100, group);
  }
}
