// From real values to the integers of a quantized output over vec.h's vectors.
#pragma once

#include "kernels/epilogue.h"
#include "kernels/two_products.h"
#include "kernels/vec.h"

namespace tae::kernels {
namespace {

// Constants of round_half_even(x / scale) + zero_point, clamped to the type.
struct Requantization {
  VF scale;
  VF inverse, rest;  // two_products.h
  VF low, high;      // bounds of the dividend (fast) or of the quotient
  VI zero_point;
};

// Two products instead of a division.
TAE_VEC bool fast_division(float scale) { return kHasFma && two_products_divide(scale); }

TAE_VEC Requantization make_requantization(const EpilogueParams& p) {
  const float low = static_cast<float>(quant_min(p.output_dtype) - p.output_zero_point);
  const float high = static_cast<float>(quant_max(p.output_dtype) - p.output_zero_point);
  const float s = p.output_scale;
  const float unit = fast_division(s) ? s : 1.f;
  const ScaleInverse inverse = scale_inverse(s);
  return {vf(s), vf(inverse.high), vf(inverse.low), vf(low * unit), vf(high * unit), vi(p.output_zero_point)};
}

// Fast: vdivps takes up to 16 cycles for 16 lanes. The dividend is clamped to the bounds
// times the scale: that keeps infinities out and saturates at the same integers.
template <bool kFast>
TAE_VEC VI requantize(VF x, const Requantization& q) {
#if defined(__FMA__)
  if constexpr (kFast) {
    const VF v = min(max(x, q.low), q.high);  // NaN becomes low
    return add(to_int(fma(v, q.inverse, mul(v, q.rest))), q.zero_point);
  }
#endif
  const VF y = min(max(div(x, q.scale), q.low), q.high);
  return add(to_int(y), q.zero_point);
}

}  // namespace
}  // namespace tae::kernels
