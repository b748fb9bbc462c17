// Kernels of fake_quantize.h over vec.h's vectors, included once per level.
#pragma once

#include "kernels/fake_quantize.h"
#include "kernels/vec.h"
#include "kernels/vec_float_env.h"

namespace tae::kernels {
namespace {

struct RowVectors {
  explicit RowVectors(const RowRule& r)
      : factor(set1(r.factor)),
        scale(set1(r.scale)),
        inverse(set1(1.f / r.scale)),
        low(set1(r.low)),
        high(set1(r.high)) {}
  // round(w * factor / scale), cut one step outside of the bounds; low - 1 for NaN.
  TAE_VEC VF steps(VF w) const { return plain_steps(mul(w, factor)); }
  // The same for factor 1.
  TAE_VEC VF plain_steps(VF x) const {
    const VF one = set1(1.f);
    return to_float(to_int(max(min(add(high, one), mul(x, inverse)), sub(low, one))));
  }
  TAE_VEC VMask outside(VF steps) const { return mask_or(less(steps, low), less(high, steps)); }
  TAE_VEC VF real(VF steps) const { return div(mul(max(min(steps, high), low), scale), factor); }
  VF factor, scale, inverse, low, high;
};

template <typename Tail>
TAE_VEC void forward_part(const float* w, const RowVectors& v, float* y, Tail t) {
  store(y, v.real(v.steps(load(w, t))), t);
}

[[gnu::noinline]] void forward_row(const float* w, int64_t count, const RowRule& rule, float* y) noexcept {
  const RowVectors v(rule);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) forward_part(w + i, v, y + i, Full{});
  if (i < count) forward_part(w + i, v, y + i, Part(count - i));
}

template <typename Tail>
TAE_VEC VF backward_part(const float* g, const float* w, const RowVectors& v, float* out, VF total, Tail t) {
  const VF zero = set1(0.f);
  const VF grad = load(g, t), weight = load(w, t);
  const VF steps = v.steps(weight);
  const VF passed = select(v.outside(steps), zero, grad);
  store(out, passed, t);
  return add(total, sub(mul(passed, weight), mul(grad, v.real(steps))));
}

TAE_VEC double sum_lanes(VF x) {
  float lanes[kLanes];
  store(lanes, x, Full{});
  double sum = 0.;
  for (float lane : lanes) sum += static_cast<double>(lane);
  return sum;
}

[[gnu::noinline]] double backward_row(const float* g, const float* w, int64_t count, const RowRule& rule,
                                      float* out) noexcept {
  const RowVectors v(rule);
  double sum = 0.;
  // Float lanes sum short stretches only.
  constexpr int64_t kStretch = 256 * kLanes;
  for (int64_t begin = 0; begin < count; begin += kStretch) {
    const int64_t end = count - begin < kStretch ? count : begin + kStretch;
    VF total = set1(0.f);
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) total = backward_part(g + i, w + i, v, out + i, total, Full{});
    if (i < end) total = backward_part(g + i, w + i, v, out + i, total, Part(end - i));
    sum += sum_lanes(total);
  }
  return sum;
}

template <typename Tail>
TAE_VEC void round_part(const float* src, const RowVectors& v, float* y, Tail t) {
  const VF steps = v.plain_steps(load(src, t));
  store(y, mul(max(min(steps, v.high), v.low), v.scale), t);
}

[[gnu::noinline]] void round_run(const float* src, int64_t count, const RowRule& rule, float* y) noexcept {
  const RowVectors v(rule);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) round_part(src + i, v, y + i, Full{});
  if (i < count) round_part(src + i, v, y + i, Part(count - i));
}

template <typename Tail>
TAE_VEC void pass_part(const float* g, const float* src, const RowVectors& v, float* out, Tail t) {
  store(out, select(v.outside(v.plain_steps(load(src, t))), set1(0.f), load(g, t)), t);
}

[[gnu::noinline]] void pass_run(const float* g, const float* src, int64_t count, const RowRule& rule,
                                float* out) noexcept {
  const RowVectors v(rule);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) pass_part(g + i, src + i, v, out + i, Full{});
  if (i < count) pass_part(g + i, src + i, v, out + i, Part(count - i));
}

// min and max drop a NaN in their first operand: NaNs are looked for by themselves.
[[gnu::noinline]] void min_max_run(const float* src, int64_t count, float* least, float* most) noexcept {
  VF low = set1(src[0]), high = low, low2 = low, high2 = low;
  VMask nan = no_lane();
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    const VF a = load(src + i, Full{}), b = load(src + i + kLanes, Full{});
    nan = mask_or(nan, unordered(a, b));
    low = min(a, low);
    high = max(a, high);
    low2 = min(b, low2);
    high2 = max(b, high2);
  }
  float mn = reduce_min(min(low, low2)), mx = reduce_max(max(high, high2));
  bool bad = any(nan);
  for (; i < count; ++i) {
    mn = src[i] < mn ? src[i] : mn;
    mx = src[i] > mx ? src[i] : mx;
    bad = bad || src[i] != src[i];
  }
  bad = bad || src[0] != src[0];
  *least = bad ? __builtin_nanf("") : mn;
  *most = bad ? __builtin_nanf("") : mx;
}

void min_max_entry(const float* src, int64_t count, float* least, float* most) {
  const DefaultFloatEnv env;
  min_max_run(src, count, least, most);
}

void round_entry(const float* src, int64_t count, const RowRule& rule, float* y) {
  const DefaultFloatEnv env;
  round_run(src, count, rule, y);
}

void pass_entry(const float* g, const float* src, int64_t count, const RowRule& rule, float* out) {
  const DefaultFloatEnv env;
  pass_run(g, src, count, rule, out);
}

void forward_entry(const float* w, int64_t count, const RowRule& rule, float* y) {
  const DefaultFloatEnv env;
  forward_row(w, count, rule, y);
}

double backward_entry(const float* g, const float* w, int64_t count, const RowRule& rule, float* out) {
  const DefaultFloatEnv env;
  return backward_row(g, w, count, rule, out);
}

constexpr FakeQuantizeKernels kFakeQuantizeKernels{min_max_entry, round_entry, pass_entry, forward_entry,
                                                   backward_entry};

}  // namespace
}  // namespace tae::kernels
