#include "kernels/requantize.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/two_products.h"
#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace {

float products(float x, const ScaleInverse& i) { return std::nearbyint(std::fma(x, i.high, x * i.low)); }

// The rule in engines/linear.h.
int32_t by_rule(float r, const EpilogueParams& p) {
  for (int i = 0; i < p.num_post_ops; ++i) {
    const PostOp& op = p.post_ops[i];
    r = op.kind == PostOp::Kind::relu ? std::max(r, 0.f) : std::min(std::max(r, op.alpha), op.beta);
  }
  const double q = std::nearbyint(r / p.output_scale) + p.output_zero_point;
  return static_cast<int32_t>(std::clamp<double>(q, quant_min(p.output_dtype), quant_max(p.output_dtype)));
}

int32_t by_bytes(float r, const ByteRule& rule, DType dtype) {
  const int32_t q = static_cast<int32_t>(products(r, rule.inverse)) + rule.zero_point;
  const uint8_t byte = static_cast<uint8_t>(std::clamp<int32_t>(q, rule.least, rule.most)) ^ rule.flip;
  return dtype == DType::qs8 ? static_cast<int8_t>(byte) : byte;
}

}  // namespace

TEST_CASE("requantize: two products are the division", "[requantize]") {
  std::mt19937 rng(7);
  int proven = 0;
  constexpr int kScales = 400;
  for (int i = 0; i < kScales; ++i) {
    // Each fourth is a power of two, or as near as the proof goes to a multiple of 2^16.
    float mantissa = random_float(rng, 1.f, 2.f);
    if (i % 4 == 0) mantissa = std::ldexp(static_cast<float>(random_int(rng, 128, 255)), -7);
    if (i % 8 == 0) mantissa = 1.f;
    if (i % 8 == 4) mantissa += (i % 16 == 4 ? 8 : -8) * 0x1p-23f;
    const float scale = std::ldexp(mantissa, random_int(rng, -59, 59));
    if (!two_products_divide(scale)) continue;
    const ScaleInverse inverse = scale_inverse(scale);
    ++proven;
    for (int32_t k = -255; k <= 255; ++k) {
      float x = static_cast<float>((k + 0.5) * double{scale});
      for (int j = 0; j < 12; ++j) x = std::nextafter(x, -INFINITY);
      for (int j = 0; j < 24; ++j, x = std::nextafter(x, INFINITY))
        REQUIRE(products(x, inverse) == std::nearbyint(x / scale));
      x = random_float(rng, -256.f, 256.f) * scale;
      REQUIRE(products(x, inverse) == std::nearbyint(x / scale));
    }
  }
  CHECK(proven >= kScales * 98 / 100);
}

TEST_CASE("requantize: scales that are refused", "[requantize]") {
  for (float scale : {0.f, -1.f, 1e-30f, 1e30f, INFINITY, NAN, 0.75f, 1.f + 7 * 0x1p-23f})
    CHECK_FALSE(two_products_divide(scale));
  for (float scale : {1.f, 0x1p-8f, 0.0235f}) CHECK(two_products_divide(scale));
  EpilogueParams p;
  p.output_dtype = DType::qu8;
  p.output_scale = 0.0235f;
  ByteRule rule, hostile;
  REQUIRE(make_byte_rule(p, &rule));
  {  // A caller's rounding does not reach the factors.
    const HostileFloatEnv env;
    CHECK(make_byte_rule(p, &hostile));
    CHECK(env.intact());
  }
  CHECK(hostile.inverse.high == rule.inverse.high);
  CHECK(hostile.inverse.low == rule.inverse.low);
}

TEST_CASE("requantize: bytes by the rule", "[requantize]") {
  using Kind = PostOp::Kind;
  const std::vector<std::vector<PostOp>> chains = {
      {},
      {{Kind::relu}},
      {{Kind::clamp, -1.f, 2.5f}},
      {{Kind::clamp, 2.f, 1.f}},
      {{Kind::clamp, -3.f, -1.f}, {Kind::relu}},
      {{Kind::relu}, {Kind::clamp, -3.f, -1.f}},
      {{Kind::clamp, -INFINITY, 6.f}},
  };
  std::mt19937 rng(8);
  for (const std::vector<PostOp>& chain : chains)
    for (DType dtype : {DType::qu8, DType::qs8})
      for (int i = 0; i < 20; ++i) {
        EpilogueParams p;
        p.post_ops = chain.data();
        p.num_post_ops = static_cast<int>(chain.size());
        p.output_dtype = dtype;
        p.output_scale = random_float(rng, 0.001f, 0.1f);
        p.output_zero_point = random_int(rng, quant_min(dtype), quant_max(dtype));
        ByteRule rule;
        if (!make_byte_rule(p, &rule)) continue;
        for (int j = 0; j < 2000; ++j) {
          const float r = j < 1000 ? random_float(rng, -8.f, 8.f) : random_float(rng, -1e6f, 1e6f);
          REQUIRE(by_bytes(r, rule, dtype) == by_rule(r, p));
        }
      }
}

TEST_CASE("requantize: outputs that have no byte rule", "[requantize]") {
  const PostOp add{PostOp::Kind::add}, silu{PostOp::Kind::silu};
  EpilogueParams p;
  ByteRule rule;
  p.output_dtype = DType::f32;
  CHECK_FALSE(make_byte_rule(p, &rule));
  p.output_dtype = DType::qu8;
  CHECK(make_byte_rule(p, &rule));
  p.num_post_ops = 1;
  for (const PostOp* op : {&add, &silu}) {
    p.post_ops = op;
    CHECK_FALSE(make_byte_rule(p, &rule));
  }
}
