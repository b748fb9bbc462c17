#include "engines/linear.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/choose_qparams.h"
#include "kernels/epilogue.h"
#include "kernels/rows.h"
#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace {

// A problem that owns its arrays.
struct Owned {
  LinearProblem p;
  std::vector<int8_t> weight;
  std::vector<float> scale, bias;
  std::vector<int32_t> zero_point;

  Owned(std::mt19937& rng, int64_t k, int64_t n, bool per_channel, bool asymmetric, bool with_bias)
      : weight(n * k), scale(per_channel ? n : 1), bias(n), zero_point(scale.size()) {
    for (int8_t& w : weight) w = static_cast<int8_t>(rng());
    for (float& s : scale) s = random_float(rng, 0.001f, 0.01f);
    for (float& b : bias) b = random_float(rng, -1.f, 1.f);
    for (int32_t& z : zero_point) z = random_int(rng, -128, 127);
    p.k = k;
    p.n = n;
    p.weight = weight.data();
    p.weight_scale = scale.data();
    p.weight_scale_size = static_cast<int64_t>(scale.size());
    if (asymmetric) p.weight_zero_point = zero_point.data();
    if (with_bias) p.bias = bias.data();
  }
};

// The same problem through the row kernels, a naive product and the epilogue.
std::vector<uint8_t> through_kernels(Isa isa, const LinearProblem& p, const LinearArgs& a) {
  const RowKernels& kernels = row_kernels(isa);
  std::vector<uint8_t> x(a.m * p.k + 1);
  std::vector<RowParams> rows(a.m);
  QParams tensor;
  const DynamicQuant& d = p.dynamic_quant;
  const auto min_max = [&](int64_t m, float& mn, float& mx) {
    const int64_t at = m * a.input_stride;
    p.input_dtype == DType::f32
        ? kernels.min_max_f32(static_cast<const float*>(a.input) + at, p.k, &mn, &mx)
        : kernels.min_max_bf16(static_cast<const uint16_t*>(a.input) + at, p.k, &mn, &mx);
  };
  if (p.dynamic && !d.per_row) {
    float all_min = 0.f, all_max = 0.f;
    for (int64_t m = 0; m < a.m; ++m) {
      float mn, mx;
      min_max(m, mn, mx);
      all_min = std::isnan(mn) ? mn : std::fmin(all_min, mn);
      all_max = std::isnan(mx) ? mx : std::fmax(all_max, mx);
      if (std::isnan(mn)) break;
    }
    tensor = tensor_qparams(all_min, all_max, d.symmetric, d.reduce_range);
  }
  for (int64_t m = 0; m < a.m; ++m) {
    uint8_t* dst = x.data() + m * p.k;
    const int64_t at = m * a.input_stride;
    if (!p.dynamic) {
      const int32_t shift = p.input_dtype == DType::qs8 ? 128 : 0;
      rows[m] = {p.input_scale, p.input_zero_point + shift, 0};
      rows[m].sum = shift != 0 ? kernels.shift_s8(static_cast<const int8_t*>(a.input) + at, p.k, dst, p.k)
                               : kernels.copy_u8(static_cast<const uint8_t*>(a.input) + at, p.k, dst, p.k);
      continue;
    }
    QParams q = tensor;
    if (d.per_row) {
      float mn, mx;
      min_max(m, mn, mx);
      q = row_qparams(mn, mx, d.symmetric, d.reduce_range);
    }
    const QRange range = dynamic_range(d.symmetric, d.reduce_range);
    const int32_t zp = q.zero_point + range.shift, lo = range.lo + range.shift, hi = range.hi + range.shift;
    const float inverse = 1.f / q.scale;
    rows[m] = {q.scale, zp, 0};
    rows[m].sum = p.input_dtype == DType::f32
                      ? kernels.quantize_f32(static_cast<const float*>(a.input) + at, p.k, inverse, zp, lo,
                                             hi, dst, p.k)
                      : kernels.quantize_bf16(static_cast<const uint16_t*>(a.input) + at, p.k, inverse, zp,
                                              lo, hi, dst, p.k);
  }
  std::vector<int32_t> raw(a.m * p.n), column_sum(p.n), zero_point(p.n);
  for (int64_t n = 0; n < p.n; ++n) {
    const int8_t* w = p.weight + n * p.k;
    for (int64_t k = 0; k < p.k; ++k) column_sum[n] += w[k];
    if (p.weight_zero_point != nullptr) zero_point[n] = p.weight_zero_point[p.weight_scale_size == 1 ? 0 : n];
    for (int64_t m = 0; m < a.m; ++m)
      for (int64_t k = 0; k < p.k; ++k) raw[m * p.n + n] += x[m * p.k + k] * w[k];
  }
  EpilogueParams e;
  e.k = p.k;
  e.weight_scale = p.weight_scale;
  e.weight_scale_stride = p.weight_scale_size == 1 ? 0 : 1;
  e.bias = p.bias;
  e.column_sum = column_sum.data();
  if (p.weight_zero_point != nullptr) e.weight_zero_point = zero_point.data();
  e.post_ops = p.post_ops.data();
  e.num_post_ops = static_cast<int>(p.post_ops.size());
  e.output_dtype = p.output_dtype;
  e.output_scale = p.output_scale;
  e.output_zero_point = p.output_zero_point;
  e.other_dtype = a.other_dtype;
  e.other_scale = a.other_scale;
  e.other_zero_point = a.other_zero_point;
  std::vector<uint8_t> output(a.m * p.n * size_of(p.output_dtype));
  EpilogueTile t;
  t.raw = raw.data();
  t.raw_stride = t.output_stride = t.other_stride = p.n;
  t.rows = a.m;
  t.cols = p.n;
  t.row = rows.data();
  t.output = output.data();
  t.other = a.other;
  epilogue(isa)(e, t);
  return output;
}

// Equal bytes, any NaN equal to any NaN.
bool same_output(DType d, const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); i += size_of(d)) {
    if (std::memcmp(&a[i], &b[i], size_of(d)) == 0) continue;
    float x = 0.f, y = 0.f;
    uint16_t xb = 0, yb = 0;
    if (d == DType::f32) {
      std::memcpy(&x, &a[i], 4), std::memcpy(&y, &b[i], 4);
    } else if (d == DType::bf16) {
      std::memcpy(&xb, &a[i], 2), std::memcpy(&yb, &b[i], 2);
      x = from_bf16(xb), y = from_bf16(yb);
    }
    if (!std::isnan(x) || !std::isnan(y)) return false;
  }
  return true;
}

std::vector<uint8_t> run(const LinearImpl& impl, const LinearProblem& p, LinearArgs a) {
  std::vector<uint8_t> output(a.m * p.n * size_of(p.output_dtype), 0xcd);
  a.output = output.data();
  impl.run(a);
  return output;
}

}  // namespace

TEST_CASE("reference: a static example by hand", "[reference]") {
  const int8_t weight[] = {1, -2, 3, 4, 5, -6};
  const float scale[] = {0.5f, 0.25f}, bias[] = {1.f, -1.f};
  const int32_t zero_point[] = {1, -1};
  const uint8_t input[] = {10, 12, 14, 99, 0, 255, 10};  // row stride 4
  LinearProblem p;
  p.k = 3;
  p.n = 2;
  p.weight = weight;
  p.weight_scale = scale;
  p.weight_scale_size = 2;
  p.weight_zero_point = zero_point;
  p.bias = bias;
  p.input_scale = 0.5f;
  p.input_zero_point = 10;
  p.output_dtype = DType::qu8;
  p.output_scale = 2.f;
  p.output_zero_point = 100;
  auto impl = make_linear_reference(p);
  REQUIRE(impl);
  LinearArgs a;
  a.m = 2;
  a.input = input;
  a.input_stride = 4;
  // x - 10: {0, 2, 4}, {-10, 245, 0}; w - zp: {0, -3, 2}, {5, 6, -5}.
  // acc: {2, -8}, {-735, 1420}; r: 0.25 * acc + 1, 0.125 * acc - 1: {1.5, -2}, {-182.75, 176.5};
  // r / 2: {0.75, -1}, {-91.375, 88.25}.
  CHECK(run(*impl.value(), p, a) == std::vector<uint8_t>{101, 99, 9, 188});
  CHECK(std::string(impl.value()->engine()) == "reference");
  CHECK(impl.value()->packed_bytes() == 6 + 4 * (2 + 2 + 2));
}

TEST_CASE("reference: a dynamic example by hand", "[reference]") {
  const int8_t weight[] = {100, -50};
  const float scale = 0.01f;
  const float input[] = {-1.f, 1.55f, 0.f, 0.f, 3.f, NAN};  // 3 rows
  LinearProblem p;
  p.k = 2;
  p.n = 1;
  p.weight = weight;
  p.weight_scale = &scale;
  p.dynamic = true;
  p.input_dtype = DType::f32;
  p.output_dtype = DType::f32;
  auto impl = make_linear_reference(p);
  LinearArgs a;
  a.m = 3;
  a.input = input;
  a.input_stride = 2;
  const std::vector<uint8_t> bytes = run(*impl.value(), p, a);
  float y[3];
  std::memcpy(y, bytes.data(), sizeof y);
  // Scale 2.55 / 255, zero point 100: x - zp is {-100, 155}.
  CHECK(y[0] == static_cast<float>(-100 * 100 - 155 * 50) * ((1.55f + 1.f) / 255.f * 0.01f));
  CHECK(y[1] == 0.f);
  CHECK(std::isnan(y[2]));
}

TEST_CASE("reference equals row kernels + epilogue, static and dynamic", "[reference]") {
  std::mt19937 rng(1);
  using Kind = PostOp::Kind;
  const std::vector<PostOps> chains = {{},
                                       {{Kind::relu, 0, 0}},
                                       {{Kind::add, 0, 0}, {Kind::relu, 0, 0}},
                                       {{Kind::gelu_erf, 0, 0}},
                                       {{Kind::silu, 0, 0}, {Kind::add, 0, 0}},
                                       {{Kind::clamp, -1.f, 2.f}, {Kind::tanh, 0, 0}}};
  for (int round = 0; round < 400; ++round) {
    const int64_t m = random_int(rng, 1, 5), k = random_int(rng, 1, 90), n = random_int(rng, 1, 40);
    Owned o(rng, k, n, rng() & 1, rng() & 1, rng() & 1);
    LinearProblem& p = o.p;
    p.dynamic = round % 2;
    constexpr DType kFloats[] = {DType::f32, DType::bf16};
    constexpr DType kAll[] = {DType::f32, DType::bf16, DType::qu8, DType::qs8};
    p.input_dtype = p.dynamic ? kFloats[rng() % 2] : kAll[2 + rng() % 2];
    p.output_dtype = p.dynamic ? kFloats[rng() % 2] : kAll[rng() % 4];
    p.dynamic_quant = {static_cast<bool>(rng() & 1), static_cast<bool>(rng() & 1),
                       static_cast<bool>(rng() & 1)};
    p.input_scale = random_float(rng, 0.01f, 0.1f);
    p.input_zero_point = p.dynamic ? 0 : random_int(rng, quant_min(p.input_dtype), quant_max(p.input_dtype));
    p.output_scale = random_float(rng, 0.01f, 0.1f);
    p.output_zero_point = random_int(rng, quant_min(p.output_dtype), quant_max(p.output_dtype));
    p.post_ops = chains[rng() % chains.size()];

    LinearArgs a;
    a.m = m;
    a.input_stride = k + random_int(rng, 0, 3);
    std::vector<uint8_t> input(m * a.input_stride * size_of(p.input_dtype)), other(m * n * 4);
    for (uint8_t& b : input) b = static_cast<uint8_t>(rng());
    if (p.dynamic && round % 8 != 1) {  // random bits hold NaN; mostly ordinary values
      for (int64_t i = 0; i < m * a.input_stride; ++i) {
        const float v = random_float(rng, -2.f, 3.f);
        const uint16_t b = to_bf16(v);
        if (p.input_dtype == DType::f32) std::memcpy(&input[4 * i], &v, 4);
        if (p.input_dtype == DType::bf16) std::memcpy(&input[2 * i], &b, 2);
      }
    }
    for (uint8_t& b : other) b = static_cast<uint8_t>(rng() % 250);
    a.input = input.data();
    a.other = other.data();
    a.other_dtype = kAll[rng() % 4];
    a.other_scale = 0.03f;
    a.other_zero_point = random_int(rng, -128, 255);

    auto impl = make_linear_reference(p);
    REQUIRE(impl);
    const std::vector<uint8_t> expected = run(*impl.value(), p, a);
    for (Isa isa : kernel_levels()) {
      INFO("round " << round << " " << name_of(isa) << " m " << m << " k " << k << " n " << n << " "
                    << name_of(p.input_dtype) << " -> " << name_of(p.output_dtype));
      REQUIRE(same_output(p.output_dtype, expected, through_kernels(isa, p, a)));
    }
    {
      const HostileFloatEnv env;
      const std::vector<uint8_t> again = run(*impl.value(), p, a);
      CHECK(same_output(p.output_dtype, expected, again));
    }
  }
}

TEST_CASE("reference: accumulators beyond int32 and dead problem pointers", "[reference]") {
  constexpr int64_t kLong = 100'000;  // 255 * 255 * 1e5 > 2^32
  std::vector<int8_t> weight(kLong, -128);
  std::vector<uint8_t> input(kLong, 255);
  std::vector<float> scale{1.f}, bias{0.5f};
  std::vector<int32_t> zero_point{127};
  LinearProblem p;
  p.k = kLong;
  p.n = 1;
  p.weight = weight.data();
  p.weight_scale = scale.data();
  p.weight_zero_point = zero_point.data();
  p.bias = bias.data();
  p.output_dtype = DType::f32;
  auto impl = make_linear_reference(p);
  std::fill(weight.begin(), weight.end(), int8_t{1});
  scale[0] = bias[0] = NAN;
  zero_point[0] = 0;
  LinearArgs a;
  a.m = 1;
  a.input = input.data();
  a.input_stride = kLong;
  const std::vector<uint8_t> bytes = run(*impl.value(), p, a);
  float y;
  std::memcpy(&y, bytes.data(), 4);
  CHECK(y == static_cast<float>(-255LL * 255 * kLong) + 0.5f);
}

TEST_CASE("reference: empty dimensions", "[reference]") {
  std::mt19937 rng(2);
  for (auto [m, k, n] : {std::tuple<int64_t, int64_t, int64_t>{0, 3, 2}, {2, 0, 3}, {2, 3, 0}}) {
    for (bool dynamic : {false, true}) {
      Owned o(rng, k, n, false, false, true);
      o.p.dynamic = dynamic;
      o.p.input_dtype = dynamic ? DType::f32 : DType::qu8;
      o.p.output_dtype = DType::f32;
      const float input[8] = {};
      LinearArgs a;
      a.m = m;
      a.input = input;
      a.input_stride = k;
      const std::vector<uint8_t> bytes = run(*make_linear_reference(o.p).value(), o.p, a);
      for (int64_t i = 0; i < m * n; ++i) CHECK(std::memcmp(&bytes[4 * i], &o.bias[i % n], 4) == 0);
    }
  }
}
