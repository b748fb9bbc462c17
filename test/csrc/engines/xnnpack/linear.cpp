// The XNNPACK engine against the formula of engines/linear.h in f64: integers exact,
// quantized outputs within the bound stated in csrc/engines/xnnpack/static_rule.h, float
// outputs within 4 ulp of the largest term.
#include "engines/linear.h"

#include <omp.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <string>
#include <thread>

#include "core/parallel.h"
#include "engines/xnnpack/xnnpack.h"
#include "kernels/choose_qparams.h"
#include "test/csrc/engines/onednn/linear_cases.h"

using namespace tae;
using namespace tae::test;

namespace {

constexpr CaseRange kAccepted{.asymmetric_weight = false, .any_post_op = false, .add = false};

LinearImplPtr make(const LinearProblem& p) {
  auto made = make_linear_xnnpack(p);
  if (!made) FAIL(made.reason());
  return made.value();
}

float input_value(const LinearCase& c, int64_t row, int64_t k) {
  const int64_t i = row * c.stride + k;
  if (c.p.input_dtype == DType::bf16) {
    uint16_t half;
    std::memcpy(&half, c.input->data() + 2 * i, 2);
    return from_bf16(half);
  }
  float v;
  std::memcpy(&v, c.input->data() + 4 * i, 4);
  return v;
}

void widen(const LinearCase& c, int64_t row, float& lo, float& hi) {
  for (int64_t k = 0; k < c.p.k; ++k) {
    const float v = input_value(c, row, k);
    if (!std::isfinite(v)) lo = hi = NAN;
    if (v < lo) lo = v;
    if (v > hi) hi = v;
  }
}

// One row's integers less their zero point, and its scale (NaN for a NaN row).
float integer_row(const LinearCase& c, int64_t row, std::vector<int64_t>& x) {
  x.assign(static_cast<size_t>(c.p.k), 0);
  if (!c.p.dynamic) {
    for (int64_t k = 0; k < c.p.k; ++k) {
      const uint8_t v = c.input->data()[row * c.stride + k];
      x[static_cast<size_t>(k)] =
          (c.p.input_dtype == DType::qs8 ? static_cast<int8_t>(v) : v) - c.p.input_zero_point;
    }
    return c.p.input_scale;
  }
  const DynamicQuant& d = c.p.dynamic_quant;
  float lo = 0.f, hi = 0.f;
  for (int64_t r = 0; r < c.m; ++r)
    if (!d.per_row || r == row) widen(c, r, lo, hi);
  const kernels::QParams q = d.per_row ? kernels::row_qparams(lo, hi, d.symmetric, d.reduce_range)
                                       : kernels::tensor_qparams(lo, hi, d.symmetric, d.reduce_range);
  if (!std::isfinite(q.scale)) return NAN;
  const kernels::QRange range = kernels::dynamic_range(d.symmetric, d.reduce_range);
  const float inverse = 1.f / q.scale;
  for (int64_t k = 0; k < c.p.k; ++k) {
    const double v = double{std::nearbyintf(input_value(c, row, k) * inverse)} + q.zero_point;
    x[static_cast<size_t>(k)] =
        static_cast<int64_t>(std::clamp(v, double(range.lo), double(range.hi))) - q.zero_point;
  }
  return q.scale;
}

double apply_post_ops(const PostOps& ops, double r) {
  for (const PostOp& op : ops)
    r = op.kind == PostOp::Kind::relu ? std::max(r, 0.0)
                                      : std::min(std::max(r, double(op.alpha)), double(op.beta));
  return r;
}

struct Tally {
  int64_t outputs = 0;
  int64_t off_by_one = 0;  // inside the bound
  int64_t wrong = 0;
};

// y = clamp(round_half_even(v) + zp), or one step off where v is that near to a
// rounding boundary.
void check_quantized(const LinearProblem& p, double real, double step, int32_t y, Tally& tally) {
  const double v = apply_post_ops(p.post_ops, real) / p.output_scale;
  const auto quantize = [&](double value) {
    const double q = std::nearbyint(value) + p.output_zero_point;
    return static_cast<int32_t>(
        std::clamp(q, double(quant_min(p.output_dtype)), double(quant_max(p.output_dtype))));
  };
  const double bound = 0.5 * step / p.output_scale + std::ldexp(std::fabs(v), -20);
  if (y == quantize(v)) return;
  // Post-ops first: a clamp moves v onto its bound without error.
  const double moved_down = apply_post_ops(p.post_ops, real - bound * p.output_scale);
  const double moved_up = apply_post_ops(p.post_ops, real + bound * p.output_scale);
  const bool near = y == quantize(moved_down / p.output_scale) || y == quantize(moved_up / p.output_scale);
  if (near && std::abs(y - quantize(v)) == 1)
    ++tally.off_by_one;
  else
    ++tally.wrong;
}

void check_float(const LinearProblem& p, double real, double largest, float y, Tally& tally) {
  // 4 units in the last place of the largest term; its f32 neighbour may overflow.
  const double magnitude = std::max({largest, std::fabs(real), 0x1p-126});
  const double slack = 4 * std::ldexp(1.0, std::ilogb(magnitude) - 23);
  double lo = apply_post_ops(p.post_ops, real - slack);
  double hi = apply_post_ops(p.post_ops, real + slack);
  if (p.output_dtype == DType::bf16) {  // rounded once more
    lo = from_bf16(to_bf16(static_cast<float>(lo)));
    hi = from_bf16(to_bf16(static_cast<float>(hi)));
  }
  if (!(y >= static_cast<float>(lo) && y <= static_cast<float>(hi))) ++tally.wrong;
}

void check_case(const LinearCase& c, const std::vector<uint8_t>& out, Tally& tally) {
  const LinearProblem& p = c.p;
  std::vector<int64_t> x;
  for (int64_t r = 0; r < c.m; ++r) {
    const float scale = integer_row(c, r, x);
    for (int64_t n = 0; n < p.n; ++n) {
      int64_t acc = 0;
      for (int64_t k = 0; k < p.k; ++k) acc += x[static_cast<size_t>(k)] * c.weight->data()[n * p.k + k];
      const double step = double(scale) * c.scale[p.weight_scale_size == 1 ? 0 : size_t(n)];
      const double product = static_cast<double>(acc) * step;
      const double bias = p.bias == nullptr ? 0.0 : p.bias[n];
      const size_t i = static_cast<size_t>(r * p.n + n);
      ++tally.outputs;
      if (is_quantized(p.output_dtype)) {
        const int32_t y = p.output_dtype == DType::qs8 ? static_cast<int8_t>(out[i]) : out[i];
        check_quantized(p, product + bias, step, y, tally);
        continue;
      }
      float y;
      if (p.output_dtype == DType::f32) {
        std::memcpy(&y, &out[4 * i], 4);
      } else {
        uint16_t half;
        std::memcpy(&half, &out[2 * i], 2);
        y = from_bf16(half);
      }
      if (std::isnan(scale)) {
        tally.wrong += !std::isnan(y);
        continue;
      }
      check_float(p, product + bias, std::max(std::fabs(product), std::fabs(bias)), y, tally);
    }
  }
}

Tally compare_random_cases(bool dynamic, unsigned seed) {
  std::mt19937 rng(seed);
  Tally total;
  for (int i = 0; i < 600; ++i) {
    const CaseSize s = case_size(rng, i);
    const LinearCase c = make_case(rng, i, s.m, s.k, s.n, dynamic, kAccepted);
    Tally tally;
    check_case(c, c.run(*make(c.p)), tally);
    if (tally.wrong != 0)
      UNSCOPED_INFO("case " << i << ": " << tally.wrong << " wrong, m " << s.m << " k " << s.k << " n " << s.n
                            << " in " << name_of(c.p.input_dtype) << " out " << name_of(c.p.output_dtype));
    total.outputs += tally.outputs;
    total.off_by_one += tally.off_by_one;
    total.wrong += tally.wrong;
  }
  return total;
}

}  // namespace

TEST_CASE("xnnpack static linear within its bound", "[xnnpack]") {
  const Tally t = compare_random_cases(false, 100);
  CHECK(t.wrong == 0);
  // The bound is reached, but rarely: 21 of 122,880 outputs in the trial it comes from.
  INFO(t.off_by_one << " of " << t.outputs << " one step off");
  CHECK(t.off_by_one < t.outputs / 500);
  CHECK(t.off_by_one > 0);  // else the comparison would be too coarse to see the bound
}

TEST_CASE("xnnpack dynamic linear within 4 ulp", "[xnnpack]") {
  CHECK(compare_random_cases(true, 200).wrong == 0);
}

// Accumulators at the ends of int32.
TEST_CASE("xnnpack: the largest k", "[xnnpack]") {
  std::mt19937 rng(2);
  for (const int kind : {1, 10, 21})  // 10, 21: all values at one end
    for (const bool dynamic : {false, true}) {
      LinearCase c = make_case(rng, kind, 3, kMaxExactK, 5, dynamic, kAccepted);
      // A folded bias has no room beside such a sum, which the engine says.
      c.p.bias = nullptr;
      Tally tally;
      check_case(c, c.run(*make(c.p)), tally);
      INFO("kind " << kind << " dynamic " << dynamic);
      CHECK(tally.wrong == 0);
    }
}

TEST_CASE("xnnpack gives the same bits on 1, 2 and 3 threads", "[xnnpack]") {
  num_threads();  // ATen sets its default on a thread's first call
  const int before = omp_get_max_threads();
  std::mt19937 rng(3);
  const int64_t shapes[][3] = {{1, 768, 1000}, {1, 4099, 200}, {5, 1500, 500},  {33, 2100, 130},
                               {150, 520, 70}, {600, 65, 500}, {130, 256, 320}, {700, 128, 900}};
  for (const auto& [m, k, n] : shapes)
    for (const bool dynamic : {false, true}) {
      const LinearCase c = make_case(rng, 1, m, k, n, dynamic, kAccepted);
      const LinearImplPtr impl = make(c.p);
      omp_set_num_threads(1);
      const std::vector<uint8_t> want = c.run(*impl);
      Tally tally;
      if (m * k * n < 30'000'000) check_case(c, want, tally);
      INFO("m " << m << " k " << k << " n " << n << " dynamic " << dynamic);
      CHECK(tally.wrong == 0);
      for (int threads = 2; threads <= 3; ++threads) {
        omp_set_num_threads(threads);
        CHECK(same_output(c.p, want, c.run(*impl)));
      }
    }
  omp_set_num_threads(before);
}

TEST_CASE("xnnpack: concurrent callers and callers inside a region", "[xnnpack]") {
  std::mt19937 rng(5);
  for (const bool dynamic : {false, true}) {
    LinearCase large = make_case(rng, 1, 70, 300, 200, dynamic, kAccepted);
    large.p.dynamic_quant.per_row = true;
    const LinearImplPtr impl = make(large.p);
    const std::vector<uint8_t> want = large.run(*impl);
    Tally tally;
    check_case(large, want, tally);
    CHECK(tally.wrong == 0);
    const size_t row_bytes = want.size() / static_cast<size_t>(large.m);
    const auto work = [&](int t) {
      int wrong = 0;
      for (int i = 0; i < 40; ++i) {
        LinearArgs args = large.args(nullptr);
        args.m = i % 3 == 0 ? large.m : 1 + (i + t) % 40;
        std::vector<uint8_t> out(static_cast<size_t>(args.m) * row_bytes);
        args.output = out.data();
        impl->run(args);
        wrong += std::memcmp(out.data(), want.data(), out.size()) != 0;
      }
      return wrong;
    };
    std::vector<int> wrong(6);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) threads.emplace_back([&, t] { wrong[static_cast<size_t>(t)] = work(t); });
    for (std::thread& t : threads) t.join();
#pragma omp parallel num_threads(2)
    wrong[4 + static_cast<size_t>(omp_get_thread_num())] = work(omp_get_thread_num());
    CHECK(wrong == std::vector<int>(6));
  }
}

TEST_CASE("xnnpack: a caller's rounding mode changes nothing", "[xnnpack]") {
  std::mt19937 rng(6);
  for (const bool dynamic : {false, true}) {
    const LinearCase c = make_case(rng, 1, 9, 130, 70, dynamic, kAccepted);
    const std::vector<uint8_t> want = c.run(*make(c.p));
    std::vector<uint8_t> got;
    {
      HostileFloatEnv env;
      auto made = make_linear_xnnpack(c.p);
      got = c.run(*made.value());
    }
    CHECK(want == got);
  }
}

// Products near the end of the float range overflow inside XNNPACK, not here.
TEST_CASE("xnnpack: rows of huge values keep finite results", "[xnnpack]") {
  std::mt19937 rng(7);
  for (const bool with_bias : {false, true}) {
    LinearCase c = make_case(rng, 1, 3, 200, 40, true, kAccepted);
    c.p.input_dtype = c.p.output_dtype = DType::f32;
    c.p.dynamic_quant = {};
    c.p.post_ops = {{PostOp::Kind::relu, 0.f, 0.f}};
    for (float& s : c.scale) s = 1e-4f;
    if (!with_bias) c.p.bias = nullptr;
    fill_input(c, rng, 1);
    for (int64_t i = 0; i < (c.m - 1) * c.stride + c.p.k; ++i) {
      const float v = random_float(rng, -1e38f, 1e38f);
      std::memcpy(c.input->data() + 4 * i, &v, 4);
    }
    Tally tally;
    check_case(c, c.run(*make(c.p)), tally);
    CHECK(tally.wrong == 0);
  }
}

TEST_CASE("xnnpack kernels follow the ISA cap", "[xnnpack]") {
  std::mt19937 rng(8);
  const LinearCase c = make_case(rng, 1, 1, 64, 64, true, kAccepted);
  const LinearImplPtr impl = make(c.p);
  INFO(impl->description());
  const std::string kernel = impl->description();
  REQUIRE(kernel.find("xnnpack qd8-f32-qc8w ") == 0);
  const auto has = [&](const char* word) { return kernel.find(word) != std::string::npos; };
  switch (best_isa()) {
    case Isa::portable:
      CHECK(has("sse"));
      break;
    case Isa::avx2:
      CHECK(has("avx2"));
      break;
    case Isa::avx_vnni:
      CHECK(has("avxvnni"));
      break;
    case Isa::avx512:
      CHECK(has("avx512skx"));
      break;
    default:
      CHECK(has("avx512vnni"));
  }
  // 64 by 64 weights, and a sum, a scale and a bias for each column.
  CHECK(impl->packed_bytes() >= 64 * 64 + 64 * 12);
  CHECK(impl->packed_bytes() < 64 * 64 + 64 * 12 + 1024);
  CHECK(std::string(xnnpack::xnnpack_version()).find("4ea82e5") != std::string::npos);
}

TEST_CASE("xnnpack refuses with a reason", "[xnnpack]") {
  std::mt19937 rng(9);
  LinearCase c = make_case(rng, 1, 1, 64, 4, false, kAccepted);
  c.p.output_dtype = DType::qu8;
  c.p.output_zero_point = 3;
  c.p.output_scale = 1.f;
  c.bias.assign(4, 0.f);
  c.p.bias = c.bias.data();
  const auto reason = [](const LinearProblem& p) {
    auto made = make_linear_xnnpack(p);
    return made ? std::string() : made.reason();
  };
  LinearProblem p = c.p;
  CHECK(reason(p).empty());
  std::vector<int32_t> zero_point(c.scale.size(), 0);
  p.weight_zero_point = zero_point.data();
  CHECK(reason(p).empty());
  zero_point[0] = 1;
  CHECK(reason(p) == "asymmetric weights");
  p = c.p;
  p.post_ops = {{PostOp::Kind::gelu_erf, 0.f, 0.f}};
  CHECK(reason(p) == "post-op other than relu or clamp");
  p.post_ops = {{PostOp::Kind::add, 0.f, 0.f}};
  CHECK(reason(p) == "post-op other than relu or clamp");
  p = c.p;
  p.output_scale = 1e-6f;
  CHECK(reason(p).find("needs < 256") != std::string::npos);
  p = c.p;
  c.bias[2] = 1e30f;
  CHECK(reason(p).find("does not fit the int32 accumulator") != std::string::npos);
  c.bias[2] = 0.f;
  p.output_zero_point = 300;
  CHECK(reason(p) == "output zero point 300 outside the output type");
  p = c.p;
  p.k = kMaxExactK + 1;
  CHECK(reason(p).find("k 65794") == 0);
  p = c.p;
  p.input_scale = 1e-42f;
  CHECK(reason(p).find("positive normal float") != std::string::npos);
}
