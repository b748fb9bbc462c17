// Random linear problems over the full integer range, for the third-party engines.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "engines/linear.h"
#include "test/csrc/kernels/kernel_testing.h"

namespace tae::test {

// What a generated problem may contain.
struct CaseRange {
  bool asymmetric_weight = true;
  bool any_post_op = true;  // else relu and clamp only
  bool add = true;
};

// A problem with its arrays. Input and weight end right before an unmapped page.
struct LinearCase {
  LinearProblem p;
  int64_t m = 0, stride = 0;
  std::unique_ptr<Guarded<int8_t>> weight;
  std::unique_ptr<Guarded<uint8_t>> input;
  std::vector<float> scale, bias, other;
  std::vector<int32_t> zero_point;

  size_t output_bytes() const { return static_cast<size_t>(m * p.n) * size_of(p.output_dtype); }
  LinearArgs args(void* output) const {
    LinearArgs a;
    a.m = m;
    a.input = input->data();
    a.input_stride = stride;
    a.output = output;
    if (p.has_add()) a.other = other.data();
    return a;
  }
  // The output, written to memory that ends right before an unmapped page.
  std::vector<uint8_t> run(const LinearImpl& impl) const {
    Guarded<uint8_t> out(static_cast<int64_t>(output_bytes()));
    std::fill(out.begin(), out.end(), uint8_t{0xa5});
    impl.run(args(out.data()));
    return std::vector<uint8_t>(out.begin(), out.end());
  }
};

// m rows of input; `kind` selects rare patterns (all extreme, zero, infinite rows).
inline void fill_input(LinearCase& c, std::mt19937& rng, int kind) {
  // The last row has no stride behind it.
  const int64_t count = c.m == 0 ? 0 : (c.m - 1) * c.stride + c.p.k;
  const size_t size = size_of(c.p.input_dtype);
  c.input = std::make_unique<Guarded<uint8_t>>(count * static_cast<int64_t>(size));
  const float mean = kind % 3 == 0 ? 1.f : 0.f, spread = kind % 7 == 6 ? 1e30f : 2.f;
  for (int64_t i = 0; i < count; ++i) {
    if (size == 1) {
      c.input->data()[i] = kind % 11 == 10 ? (kind % 2 ? 255 : 128) : static_cast<uint8_t>(rng());
      continue;
    }
    float v = random_float(rng, mean - spread, mean + spread);
    if (kind % 19 == 18 && i == count / 2) v = std::numeric_limits<float>::infinity();
    if (kind % 29 == 28 && i == count / 3) v = std::numeric_limits<float>::quiet_NaN();
    if (kind % 23 == 22) v = 0.f;
    if (size == 4) std::memcpy(c.input->data() + 4 * i, &v, 4);
    const uint16_t half = to_bf16(v);
    if (size == 2) std::memcpy(c.input->data() + 2 * i, &half, 2);
  }
}

inline void add_post_ops(LinearCase& c, std::mt19937& rng, const CaseRange& range) {
  using Kind = PostOp::Kind;
  const int count = random_int(rng, 0, 2);
  for (int i = 0; i < count; ++i) {
    const auto kind = range.any_post_op       ? static_cast<Kind>(random_int(rng, 0, 9))
                      : random_int(rng, 0, 1) ? Kind::relu
                                              : Kind::clamp;
    PostOp op{kind, 0.f, 0.f};
    op.alpha = kind == Kind::leaky_relu ? 0.1f : random_float(rng, -30.f, 5.f);
    op.beta = random_float(rng, -5.f, 30.f);
    c.p.post_ops.push_back(op);
  }
  if (!range.add || random_int(rng, 0, 3) != 0) return;
  c.p.post_ops.push_back({PostOp::Kind::add, 0.f, 0.f});
  c.other.resize(static_cast<size_t>(c.m * c.p.n));
  for (float& v : c.other) v = random_float(rng, -5.f, 5.f);
}

inline LinearCase make_case(std::mt19937& rng, int kind, int64_t m, int64_t k, int64_t n, bool dynamic,
                            const CaseRange& range) {
  LinearCase c;
  LinearProblem& p = c.p;
  c.m = m;
  c.stride = k + (random_int(rng, 0, 1) ? 0 : random_int(rng, 1, 70));
  p.k = k;
  p.n = n;
  c.weight = std::make_unique<Guarded<int8_t>>(n * k);
  for (int8_t& v : *c.weight) v = kind % 11 == 10 ? int8_t{-128} : static_cast<int8_t>(rng());
  p.weight = c.weight->data();
  p.weight_scale_size = random_int(rng, 0, 3) == 0 ? 1 : n;
  c.scale.resize(static_cast<size_t>(p.weight_scale_size));
  for (float& v : c.scale) v = random_float(rng, 0.001f, 0.1f);
  p.weight_scale = c.scale.data();
  if (range.asymmetric_weight && random_int(rng, 0, 3) == 0) {
    c.zero_point.resize(c.scale.size());
    for (int32_t& v : c.zero_point) v = static_cast<int8_t>(rng());
    p.weight_zero_point = c.zero_point.data();
  }
  if (random_int(rng, 0, 3) != 0) {
    c.bias.resize(static_cast<size_t>(n));
    for (float& v : c.bias) v = random_float(rng, -10.f, 10.f);
    p.bias = c.bias.data();
  }
  p.dynamic = dynamic;
  constexpr DType kAny[] = {DType::f32, DType::bf16, DType::qu8, DType::qs8};
  p.input_dtype = kAny[(dynamic ? 0 : 2) + random_int(rng, 0, 1)];
  p.output_dtype = kAny[random_int(rng, 0, dynamic ? 1 : 3)];
  p.dynamic_quant.per_row = random_int(rng, 0, 2) != 0;
  p.dynamic_quant.symmetric = random_int(rng, 0, 2) == 0;
  p.dynamic_quant.reduce_range = random_int(rng, 0, 3) == 0;
  p.input_scale = random_float(rng, 0.001f, 0.1f);
  p.output_scale = random_float(rng, 0.3f, 30.f);
  const auto zero_point = [&](DType dtype) {
    // Often an end of the range.
    const int pick = random_int(rng, 0, 5);
    const int lo = quant_min(dtype), hi = quant_max(dtype);
    return pick == 0 ? lo : pick == 1 ? hi : random_int(rng, lo, hi);
  };
  if (!dynamic) p.input_zero_point = zero_point(p.input_dtype);
  if (is_quantized(p.output_dtype)) p.output_zero_point = zero_point(p.output_dtype);
  add_post_ops(c, rng, range);
  fill_input(c, rng, kind);
  return c;
}

// Sizes of case i: ones, multiples of the packing, and anything between.
struct CaseSize {
  int64_t m, k, n;
};
inline CaseSize case_size(std::mt19937& rng, int i) {
  CaseSize s;
  s.m = i % 4 == 0 ? 1 : i % 17 == 1 ? random_int(rng, 65, 150) : random_int(rng, 1, 40);
  s.k = i % 13 == 0 ? 1 : i % 6 == 0 ? 64 * random_int(rng, 1, 4) : random_int(rng, 1, 300);
  s.n = i % 5 == 0 ? 1 : i % 7 == 0 ? 64 * random_int(rng, 1, 3) : random_int(rng, 1, 150);
  return s;
}

// Bit-equal outputs; any NaN equals any NaN.
inline bool same_output(const LinearProblem& p, const std::vector<uint8_t>& a,
                        const std::vector<uint8_t>& b) {
  if (is_quantized(p.output_dtype)) return a == b;
  const size_t size = size_of(p.output_dtype);
  for (size_t i = 0; i < a.size(); i += size) {
    float x, y;
    if (size == 4) {
      std::memcpy(&x, &a[i], 4);
      std::memcpy(&y, &b[i], 4);
    } else {
      uint16_t u, v;
      std::memcpy(&u, &a[i], 2);
      std::memcpy(&v, &b[i], 2);
      x = from_bf16(u);
      y = from_bf16(v);
    }
    if (!(x == y) && !(std::isnan(x) && std::isnan(y))) return false;
  }
  return true;
}

}  // namespace tae::test
