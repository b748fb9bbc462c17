// Scale and zero point of a dynamically quantized row or tensor, from its
// minimum and maximum. The rules are stated in engines/linear.h.
//
// Internal linkage throughout, so that files built for different ISAs may
// include this header.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

namespace tae::kernels {

struct QParams {
  float scale = 1.f;
  int32_t zero_point = 0;
};

// The integers a dynamic quantization may use, inclusive. Symmetric values are
// signed; kernels that work in the u8 domain add `shift` to values, bounds and
// zero point alike.
struct QRange {
  int32_t lo = 0;
  int32_t hi = 255;
  int32_t shift = 0;
};

static inline QRange dynamic_range(bool symmetric, bool reduce_range) {
  if (symmetric) return reduce_range ? QRange{-63, 63, 128} : QRange{-127, 127, 128};
  return reduce_range ? QRange{0, 127, 0} : QRange{0, 255, 0};
}

namespace detail {

static inline float max_abs(float mn, float mx) { return -mn > mx ? -mn : mx; }

// All-finite test that also catches infinity minus infinity.
static inline bool finite_range(float mn, float mx) {
  return __builtin_isfinite(mn) && __builtin_isfinite(mx);
}

// To the nearest integer, ties to even, for 0 <= x < 2^22 in the default float
// environment. Not nearbyintf: a call through the PLT without SSE4.1.
static inline float round_small(float x) {
  constexpr float kUnit = 8388608.f;  // 2^23: neighbours are integers
  return (x + kUnit) - kUnit;
}

static inline QParams not_a_number() { return {__builtin_nanf(""), 0}; }

}  // namespace detail

// Row rule, all steps in f32. mn and mx may exclude 0; non-finite ones give a
// NaN scale. A range wider than FLT_MAX gives an infinite scale (then
// 1 / scale is 0, and every output of the row NaN).
static inline QParams row_qparams(float mn, float mx, bool symmetric, const QRange& range) {
  if (!detail::finite_range(mn, mx)) return detail::not_a_number();
  if (mn > 0.f) mn = 0.f;
  if (mx < 0.f) mx = 0.f;
  QParams q;
  q.scale = symmetric ? detail::max_abs(mn, mx) / static_cast<float>(range.hi)
                      : (mx - mn) / static_cast<float>(range.hi - range.lo);
  // Below the smallest normal number 1 / scale may overflow.
  if (q.scale < FLT_MIN) q.scale = mx == mn ? 1.f : FLT_MIN;
  if (!symmetric) {
    const float zp = detail::round_small(-mn / q.scale) + static_cast<float>(range.lo);
    q.zero_point = zp >= static_cast<float>(range.hi)  ? range.hi
                   : zp > static_cast<float>(range.lo) ? static_cast<int32_t>(zp)
                                                       : range.lo;
  }
  return q;
}

static inline QParams row_qparams(float mn, float mx, bool symmetric, bool reduce_range) {
  return row_qparams(mn, mx, symmetric, dynamic_range(symmetric, reduce_range));
}

// Tensor rule: ATen's quant_utils::ChooseQuantizationParams (ATen/native/
// quantized/cpu/QuantUtils.h), affine without preserve_sparsity: the same
// result for every finite pair. Symmetric (ATen has no dynamic linear with it):
// max|x| / hi in double with the same treatment of small scales, zero point 0.
static inline QParams tensor_qparams(float mn, float mx, bool symmetric, const QRange& range) {
  constexpr float kSmallScale = 6.1e-5f;  // below: subnormal in fp16, kept out as ATen does
  if (!detail::finite_range(mn, mx)) return detail::not_a_number();
  if (mn > 0.f) mn = 0.f;
  if (mx < 0.f) mx = 0.f;

  double scale = symmetric ? static_cast<double>(detail::max_abs(mn, mx)) / range.hi
                           : (static_cast<double>(mx) - mn) / (range.hi - range.lo);
  const float scale_f32 = static_cast<float>(scale);
  if (scale_f32 == 0.f || __builtin_isinf(1.f / scale_f32)) scale = 0.1;
  if (scale < kSmallScale) {
    // The end points grow with the scale, so that the zero point stays.
    const float original = static_cast<float>(scale);
    scale = kSmallScale;
    if (mn == 0.f) {
      mx = kSmallScale * static_cast<float>(range.hi - range.lo);
    } else if (mx == 0.f) {
      mn = -kSmallScale * static_cast<float>(range.hi - range.lo);
    } else {
      const float factor = kSmallScale / original;
      mn *= factor;
      mx *= factor;
    }
  }
  QParams q{static_cast<float>(scale), 0};
  if (symmetric) return q;

  // Two equations give the zero point; the one with the smaller terms has the
  // smaller rounding error.
  const double from_min = range.lo - mn / scale;
  const double from_max = range.hi - mx / scale;
  const double min_error = range.lo - __builtin_fabs(mn / scale);
  const double max_error = range.hi - __builtin_fabs(mx / scale);
  const double zp = min_error < max_error ? from_min : from_max;
  q.zero_point = zp < range.lo   ? range.lo
                 : zp > range.hi ? range.hi
                                 : static_cast<int32_t>(__builtin_nearbyint(zp));
  return q;
}

static inline QParams tensor_qparams(float mn, float mx, bool symmetric, bool reduce_range) {
  return tensor_qparams(mn, mx, symmetric, dynamic_range(symmetric, reduce_range));
}

}  // namespace tae::kernels
