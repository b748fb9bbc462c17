#include "kernels/epilogue.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/post_ops.h"
#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace {

// The rule of engines/linear.h in scalar code, from true division.
int32_t requantize_model(float r, const EpilogueParams& p) {
  const int32_t lo = quant_min(p.output_dtype), hi = quant_max(p.output_dtype);
  const float v = std::nearbyintf(r / p.output_scale);
  if (std::isnan(v)) return lo;
  if (v <= static_cast<float>(lo - p.output_zero_point)) return lo;
  if (v >= static_cast<float>(hi - p.output_zero_point)) return hi;
  return static_cast<int32_t>(v) + p.output_zero_point;
}

float other_model(const EpilogueParams& p, const EpilogueTile& t, int64_t index) {
  switch (p.other_dtype) {
    case DType::f32:
      return static_cast<const float*>(t.other)[index];
    case DType::bf16:
      return from_bf16(static_cast<const uint16_t*>(t.other)[index]);
    case DType::qs8:
      return static_cast<float>(static_cast<const int8_t*>(t.other)[index] - p.other_zero_point) *
             p.other_scale;
    default:
      return static_cast<float>(static_cast<const uint8_t*>(t.other)[index] - p.other_zero_point) *
             p.other_scale;
  }
}

float real_model(const EpilogueParams& p, const EpilogueTile& t, int64_t r, int64_t c) {
  const RowParams& row = t.row[r * t.row_step];
  const int64_t n = t.n0 + c;
  int64_t acc = t.raw[r * t.raw_stride + c] - static_cast<int64_t>(row.zero_point) * p.column_sum[n];
  if (p.weight_zero_point != nullptr) acc -= p.weight_zero_point[n] * (row.sum - p.k * row.zero_point);
  const float weight_scale = p.weight_scale[n * p.weight_scale_stride];
  // Modulo 2^32, as every level computes it.
  float x = static_cast<float>(static_cast<int32_t>(static_cast<uint32_t>(acc))) * (row.scale * weight_scale);
  if (p.bias != nullptr) x = x + p.bias[n];
  for (int i = 0; i < p.num_post_ops; ++i) {
    float operand = 0.f, shift = 0.f;
    if (p.post_ops[i].kind == PostOp::Kind::add) operand = other_model(p, t, r * t.other_stride + c);
    if (p.post_ops[i].kind == PostOp::Kind::prelu) operand = p.slope[n];
    if (p.post_ops[i].kind == PostOp::Kind::affine) {
      operand = p.affine_weight[n];
      shift = p.affine_bias[n];
    }
    x = apply_post_op(p.post_ops[i], x, operand, shift);
  }
  return x;
}

// Index of the first wrong element or -1.
int64_t first_wrong(const EpilogueParams& p, const EpilogueTile& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t c = 0; c < t.cols; ++c) {
      const float x = real_model(p, t, r, c);
      const int64_t at = r * t.output_stride + c;
      bool ok = false;
      switch (p.output_dtype) {
        case DType::f32:
          ok = same(static_cast<float*>(t.output)[at], x);
          break;
        case DType::bf16: {
          const uint16_t got = static_cast<uint16_t*>(t.output)[at];
          ok = std::isnan(x) ? std::isnan(from_bf16(got)) && (got & 0x40) : got == to_bf16(x);
          break;
        }
        case DType::qs8:
          ok = static_cast<int8_t*>(t.output)[at] == requantize_model(x, p);
          break;
        default:
          ok = static_cast<uint8_t*>(t.output)[at] == requantize_model(x, p);
          break;
      }
      if (!ok) return r * t.cols + c;
    }
  }
  return -1;
}

// Everything a call needs, filled at random; all buffers between guard pages.
struct Case {
  Case(std::mt19937& rng, int64_t rows, int64_t cols, Edge edge)
      : raw(rows * cols, edge),
        column_sum(cols, edge),
        weight_zero_point(cols, edge),
        weight_scale(cols, edge),
        bias(cols, edge),
        slope(cols, edge),
        affine_weight(cols, edge),
        affine_bias(cols, edge),
        row(rows, edge),
        output(rows * cols * 4, edge),
        other(rows * cols * 4, edge),
        output_bf16(rows * cols * 2, edge),
        output_q(rows * cols, edge),
        other_bf16(rows * cols * 2, edge),
        other_q(rows * cols, edge) {
    for (int32_t& v : raw) v = static_cast<int32_t>(rng()) >> random_int(rng, 0, 24);
    for (int32_t& v : column_sum) v = random_int(rng, -128 * 512, 127 * 512);
    for (int32_t& v : weight_zero_point) v = random_int(rng, -128, 127);
    for (float& v : weight_scale) v = std::ldexp(random_float(rng, 1.f, 2.f), random_int(rng, -14, -6));
    for (float& v : bias) v = random_float(rng, -2.f, 2.f);
    for (Guarded<float>* values : {&slope, &affine_weight, &affine_bias})
      for (float& v : *values) v = random_float(rng, -2.f, 2.f);
    for (RowParams& v : row)
      v = {std::ldexp(random_float(rng, 1.f, 2.f), random_int(rng, -12, -4)), random_int(rng, 0, 255),
           random_int(rng, 0, 255 * 512)};
    for (Guarded<uint8_t>* bytes : {&other, &other_bf16, &other_q})
      for (uint8_t& v : *bytes) v = static_cast<uint8_t>(rng());
    for (int64_t i = 0; i < rows * cols; ++i) {  // some ordinary values among the random bits
      const float v = random_float(rng, -3.f, 3.f);
      const uint16_t b = to_bf16(v);
      if (i % 3 != 0) std::memcpy(other.data() + 4 * i, &v, 4);
      if (i % 3 != 0) std::memcpy(other_bf16.data() + 2 * i, &b, 2);
    }
    params.k = 512;
    params.weight_scale = weight_scale.data();
    params.column_sum = column_sum.data();
    params.slope = slope.data();
    params.affine_weight = affine_weight.data();
    params.affine_bias = affine_bias.data();
    tile.raw = raw.data();
    tile.raw_stride = tile.output_stride = tile.other_stride = cols;
    tile.rows = rows;
    tile.cols = cols;
    tile.row = row.data();
  }
  void set_output(DType d) {
    params.output_dtype = d;
    tile.output = d == DType::f32 ? output.data() : d == DType::bf16 ? output_bf16.data() : output_q.data();
  }
  void set_other(DType d) {
    params.other_dtype = d;
    tile.other = d == DType::f32 ? other.data() : d == DType::bf16 ? other_bf16.data() : other_q.data();
  }

  Guarded<int32_t> raw, column_sum, weight_zero_point;
  Guarded<float> weight_scale, bias, slope, affine_weight, affine_bias;
  Guarded<RowParams> row;
  Guarded<uint8_t> output, other, output_bf16, output_q, other_bf16, other_q;
  EpilogueParams params;
  EpilogueTile tile;
};

constexpr DType kOutputs[] = {DType::f32, DType::bf16, DType::qu8, DType::qs8};
constexpr DType kOthers[] = {DType::f32, DType::bf16, DType::qu8, DType::qs8};
using Kind = PostOp::Kind;
constexpr PostOp kEach[] = {
    {Kind::relu, 0.f, 0.f},      {Kind::clamp, -0.5f, 0.75f},   {Kind::leaky_relu, 0.01f, 0.f},
    {Kind::silu, 0.f, 0.f},      {Kind::gelu_erf, 0.f, 0.f},    {Kind::gelu_tanh, 0.f, 0.f},
    {Kind::hardswish, 0.f, 0.f}, {Kind::hardsigmoid, 0.f, 0.f}, {Kind::sigmoid, 0.f, 0.f},
    {Kind::tanh, 0.f, 0.f},      {Kind::add, 0.f, 0.f},         {Kind::prelu, 0.f, 0.f},
    {Kind::affine, 0.f, 0.f}};

}  // namespace

TEST_CASE("epilogue equals the scalar rule for all widths, types and options", "[epilogue]") {
  for (Isa isa : kernel_levels()) {
    std::mt19937 rng(1);
    int cases = 0;
    for (int64_t cols = 1; cols <= 130; ++cols) {
      for (int variant = 0; variant < 8; ++variant, ++cases) {
        Case c(rng, random_int(rng, 1, 9), cols, variant % 2 ? Edge::kStart : Edge::kEnd);
        c.set_output(kOutputs[variant % 4]);
        c.set_other(kOthers[random_int(rng, 0, 3)]);
        c.params.other_scale = 0.02f;
        c.params.other_zero_point = random_int(rng, -10, 140);
        c.params.output_scale = random_float(rng, 0.001f, 0.1f);
        c.params.output_zero_point =
            random_int(rng, quant_min(c.params.output_dtype), quant_max(c.params.output_dtype));
        if (rng() & 1) c.params.bias = c.bias.data();
        if (rng() & 1) c.params.weight_zero_point = c.weight_zero_point.data();
        if (rng() & 1) c.params.weight_scale_stride = 0;
        c.tile.row_step = rng() & 1;
        if (variant == 7) c.row[0].scale = std::nanf("");
        std::vector<PostOp> ops;
        bool added = false;
        for (int i = random_int(rng, 0, 3); i > 0; --i) {
          const PostOp op = kEach[rng() % std::size(kEach)];
          if (op.kind == Kind::add && added) continue;
          added = added || op.kind == Kind::add;
          ops.push_back(op);
        }
        c.params.post_ops = ops.data();
        c.params.num_post_ops = static_cast<int>(ops.size());
        epilogue(isa)(c.params, c.tile);
        INFO(name_of(isa) << " cols " << cols << " variant " << variant);
        REQUIRE(first_wrong(c.params, c.tile) == -1);
      }
    }
    CHECK(cases == 1040);
  }
}

TEST_CASE("epilogue reads columns from n0 and honours strides", "[epilogue]") {
  for (Isa isa : kernel_levels()) {
    std::mt19937 rng(2);
    Case c(rng, 6, 100, Edge::kEnd);
    c.set_output(DType::qu8);
    c.params.bias = c.bias.data();
    c.params.output_scale = 0.05f;
    c.params.output_zero_point = 128;
    std::memset(c.output_q.data(), 0xa5, 600);
    EpilogueTile part = c.tile;  // columns 37 to 89 of rows 1 to 4
    part.rows = 4;
    part.cols = 53;
    part.n0 = 37;
    part.raw += 100 + 37;
    part.row += 1;
    part.output = c.output_q.data() + 100 + 37;
    epilogue(isa)(c.params, part);
    CHECK(first_wrong(c.params, part) == -1);
    for (int64_t i = 0; i < 600; ++i) {
      const int64_t r = i / 100, col = i % 100;
      const bool inside = r >= 1 && r < 5 && col >= 37 && col < 90;
      if (!inside) REQUIRE(c.output_q[i] == 0xa5);
    }
  }
}

TEST_CASE("requantization is exact for every accumulator in +-2^17", "[epilogue]") {
  constexpr int64_t kCols = 4096, kRange = 1 << 17;
  std::vector<int32_t> raw(kCols), zero_sum(kCols, 0);
  std::vector<uint8_t> got(kCols), expected(kCols);
  const float unit = 1.f;
  RowParams row;
  std::mt19937 rng(3);
  for (int s = 0; s < 64; ++s) {
    EpilogueParams p;
    p.weight_scale = &unit;
    p.weight_scale_stride = 0;
    p.column_sum = zero_sum.data();
    p.output_dtype = s % 2 ? DType::qs8 : DType::qu8;
    // A power of two puts half of the quotients on ties; the others are arbitrary.
    p.output_scale = s % 8 == 0 ? 1.f : random_float(rng, 0.5f, 2.f);
    row.scale = std::ldexp(s % 8 == 0 ? 1.f : random_float(rng, 1.f, 2.f), -1 - random_int(rng, 0, 12));
    const int lo = quant_min(p.output_dtype);
    for (int zp : {lo, lo + 1, lo + 128, lo + 255}) {
      p.output_zero_point = zp;
      for (int64_t begin = -kRange; begin <= kRange; begin += kCols) {
        for (int64_t i = 0; i < kCols; ++i) raw[i] = static_cast<int32_t>(begin + i);
        EpilogueTile t;
        t.raw = raw.data();
        t.rows = 1;
        t.cols = kCols;
        t.row = &row;
        t.output = got.data();
        for (int64_t i = 0; i < kCols; ++i)
          expected[i] = static_cast<uint8_t>(requantize_model(static_cast<float>(raw[i]) * row.scale, p));
        for (Isa isa : kernel_levels()) {
          epilogue(isa)(p, t);
          if (std::memcmp(got.data(), expected.data(), kCols) != 0)
            FAIL(name_of(isa) << " scale " << row.scale << " / " << p.output_scale << " from " << begin);
        }
      }
    }
  }
}

TEST_CASE("the fast division rounds as true division at every scale", "[epilogue]") {
  constexpr int64_t kCols = 2048;
  std::vector<int32_t> raw(kCols, 0), zero_sum(kCols, 0);
  std::vector<float> dividend(kCols);
  std::vector<uint8_t> got(kCols), expected(kCols);
  const float unit = 1.f;
  const RowParams row{0.f, 0, 0};  // acc * 0 + bias: the bias is the dividend
  std::mt19937 rng(4);
  for (int round = 0; round < 2000; ++round) {
    EpilogueParams p;
    p.weight_scale = &unit;
    p.weight_scale_stride = 0;
    p.column_sum = zero_sum.data();
    p.bias = dividend.data();
    p.output_dtype = DType::qs8;
    p.output_zero_point = random_int(rng, -128, 127);
    // Mantissas all ones, 1 and random; exponents over the normal range, its ends included.
    uint32_t mantissa = rng() & 0x7fffff;
    if (round % 5 == 0) mantissa = 0x7fffff - (rng() & 3);
    if (round % 5 == 1) mantissa = rng() & 3;
    const int exponent = round % 3 ? random_int(rng, -62, 62) : random_int(rng, -126, 127);
    p.output_scale = std::bit_cast<float>(static_cast<uint32_t>(exponent + 127) << 23 | mantissa);
    for (float& x : dividend) {
      switch (rng() % 4) {
        case 0:
          x = random_bits(rng);
          break;
        case 1:
          x = random_float(rng, -400.f, 400.f) * p.output_scale;
          break;
        default: {  // at and around the ties
          const float tie = static_cast<float>(random_int(rng, -260, 260)) + 0.5f;
          x = tie * p.output_scale;
          for (int ulps = random_int(rng, -2, 2); ulps != 0; ulps += ulps < 0 ? 1 : -1)
            x = std::nextafterf(x, ulps < 0 ? -INFINITY : INFINITY);
        }
      }
    }
    EpilogueTile t;
    t.raw = raw.data();
    t.rows = 1;
    t.cols = kCols;
    t.row = &row;
    t.output = got.data();
    for (int64_t i = 0; i < kCols; ++i)
      expected[i] = static_cast<uint8_t>(requantize_model(0.f + dividend[i], p));
    for (Isa isa : kernel_levels()) {
      epilogue(isa)(p, t);
      for (int64_t i = 0; i < kCols; ++i)
        if (got[i] != expected[i])
          FAIL(name_of(isa) << ": " << dividend[i] << " / " << p.output_scale << " + " << p.output_zero_point
                            << " gave " << int(got[i]) << ", not " << int(expected[i]));
    }
  }
}

TEST_CASE("the caller's rounding mode and denormal flags change nothing", "[epilogue]") {
  for (Isa isa : kernel_levels()) {
    for (DType output : kOutputs) {
      std::mt19937 rng(5);
      Case c(rng, 5, 77, Edge::kEnd);
      c.set_output(output);
      c.set_other(DType::f32);
      c.params.bias = c.bias.data();
      c.bias[3] = 1e-40f;
      c.params.output_scale = 0.013f;
      for (const PostOp& op : kEach) {
        c.params.post_ops = &op;
        c.params.num_post_ops = 1;
        bool intact = false;
        {
          const HostileFloatEnv env;
          epilogue(isa)(c.params, c.tile);
          intact = env.intact();
        }
        CHECK(intact);
        INFO(name_of(isa) << " output " << name_of(output) << " post-op " << int(op.kind));
        CHECK(first_wrong(c.params, c.tile) == -1);
      }
    }
  }
}

namespace {

double exact_post_op(const PostOp& op, double x) {
  switch (op.kind) {
    case Kind::silu:
      return x < -1000. ? 0. : x / (1. + std::exp(-x));
    case Kind::gelu_erf:
      return x < -100. ? 0. : x * 0.5 * std::erfc(-x / std::sqrt(2.));
    case Kind::gelu_tanh: {
      const double z = 2. * std::sqrt(2. / M_PI) * (x + 0.044715 * x * x * x);
      return x < -100. ? 0. : x / (1. + std::exp(-z));
    }
    case Kind::hardswish:
      return x * std::fmin(std::fmax(x + 3., 0.), 6.) / 6.;
    case Kind::hardsigmoid:
      return std::fmin(std::fmax(x + 3., 0.), 6.) / 6.;
    case Kind::sigmoid:
      return 1. / (1. + std::exp(-x));
    default:
      return std::tanh(x);
  }
}

// Distance from the exact value in ulp of the result, 0 when within 1e-7.
double excess_ulp(const PostOp& op, float x) {
  const double exact = exact_post_op(op, x), got = apply_post_op(op, x, 0.f);
  const double error = std::fabs(got - exact);
  if (error <= 1e-7) return 0.;
  const double ulp = std::ldexp(1., std::ilogb(static_cast<float>(exact)) - 23);
  return error / ulp;
}

}  // namespace

TEST_CASE("transcendental post-ops stay within 4 ulp or 1e-7", "[epilogue]") {
  for (Kind kind : {Kind::silu, Kind::gelu_erf, Kind::gelu_tanh, Kind::hardswish, Kind::hardsigmoid,
                    Kind::sigmoid, Kind::tanh}) {
    const PostOp op{kind, 0.f, 0.f};
    double worst = 0.;
    float worst_x = 0.f;
    const auto look = [&](float x) {
      const double e = excess_ulp(op, x);
      if (!(e <= worst)) worst = e, worst_x = x;
    };
    for (uint32_t b = 0; b < 0x10000; ++b) {
      const float x = from_bf16(static_cast<uint16_t>(b));
      if (std::fabs(x) < 1e37f) look(x);  // hardswish: 6 x overflows beyond, as x * 6 / 6 does
    }
    for (int i = -300000; i <= 300000; ++i) look(static_cast<float>(i) * (1.f / 18000.f));
    INFO("post-op " << int(kind) << " at " << worst_x);
    CHECK(worst <= 4.);
  }
}

TEST_CASE("post-ops have their limits and keep NaN", "[epilogue]") {
  const float inf = INFINITY, nan = std::nanf("");
  const auto at = [](Kind kind, float x) { return apply_post_op({kind, 0.1f, 2.f}, x, 0.f); };
  for (Kind kind : {Kind::silu, Kind::gelu_erf, Kind::gelu_tanh, Kind::hardswish}) {
    INFO(int(kind));
    CHECK(at(kind, inf) == inf);
    CHECK(at(kind, -inf) == 0.f);
    CHECK(at(kind, -1e30f) == 0.f);
    CHECK(std::fabs(at(kind, 1e30f) - 1e30f) <= 1e23f);  // hardswish rounds 6 x
    CHECK(at(kind, 0.f) == 0.f);
  }
  for (Kind kind : {Kind::sigmoid, Kind::hardsigmoid}) {
    CHECK(at(kind, inf) == 1.f);
    CHECK(at(kind, -inf) == 0.f);
    CHECK(at(kind, 0.f) == 0.5f);
  }
  CHECK(at(Kind::tanh, inf) == 1.f);
  CHECK(at(Kind::tanh, -inf) == -1.f);
  CHECK(at(Kind::relu, -inf) == 0.f);
  CHECK(at(Kind::clamp, -inf) == 0.1f);
  CHECK(at(Kind::clamp, inf) == 2.f);
  CHECK(at(Kind::leaky_relu, -2.f) == 0.1f * -2.f);
  for (const PostOp& op : kEach) CHECK(std::isnan(apply_post_op(op, nan, 1.f)));

  // Through the vectors: every post-op on special values, all levels.
  const float special[] = {0.f,     -0.f,     inf,   -inf,   nan,          1e-45f, -1e-40f,
                           3.4e38f, -3.4e38f, 87.f,  -87.f,  -87.5f,       88.8f,  -103.f,
                           -104.f,  14.f,     -14.f, 0.625f, -0.62499994f, 3.f,    -3.f};
  constexpr int64_t kCount = std::size(special);
  int32_t zero[kCount] = {};
  const float unit = 1.f;
  const RowParams row{0.f, 0, 0};
  for (Isa isa : kernel_levels()) {
    for (const PostOp& op : kEach) {
      float output[kCount];
      EpilogueParams p;
      p.weight_scale = &unit;
      p.weight_scale_stride = 0;
      p.column_sum = zero;
      p.bias = special;
      p.slope = p.affine_weight = p.affine_bias = special;
      p.post_ops = &op;
      p.num_post_ops = 1;
      EpilogueTile t;
      t.raw = zero;
      t.rows = 1;
      t.cols = kCount;
      t.row = &row;
      t.output = output;
      t.other = special;
      epilogue(isa)(p, t);
      INFO(name_of(isa) << " post-op " << int(op.kind));
      CHECK(first_wrong(p, t) == -1);
    }
  }
}
