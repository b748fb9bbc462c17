// Fake quantization of a run of values, its gradient, and the extremes that observers need;
// see ops/fake_quantize.cpp.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"

namespace tae::kernels {

// y = clamp(round(w * factor / scale), low, high) * scale / factor; low and high are the
// integer bounds minus the zero point.
struct RowRule {
  float factor = 1.f;
  float scale = 1.f;
  float low = 0.f;
  float high = 0.f;
};

struct FakeQuantizeKernels {
  // Smallest and largest value of count >= 1; both NaN if any is.
  void (*min_max)(const float* src, int64_t count, float* min, float* max);
  // y for a factor of 1.
  void (*round)(const float* src, int64_t count, const RowRule& rule, float* y);
  // input_grad = grad where round(src / scale) lies within the bounds, else 0.
  void (*pass)(const float* grad, const float* src, int64_t count, const RowRule& rule, float* input_grad);
  void (*forward)(const float* weight, int64_t count, const RowRule& rule, float* y);
  // weight_grad = grad where round(w * factor / scale) lies within the bounds, else 0.
  // Returns sum(weight_grad * weight - grad * y): the gradient of factor times factor.
  double (*backward)(const float* grad, const float* weight, int64_t count, const RowRule& rule,
                     float* weight_grad);
};
const FakeQuantizeKernels& fake_quantize_kernels(Isa isa);

}  // namespace tae::kernels
