#include "engines/xnnpack/static_rule.h"

#include <algorithm>
#include <cmath>

namespace tae::xnnpack {

Result<RealBounds> fuse_post_ops(const PostOps& post_ops) {
  RealBounds bounds;
  for (const PostOp& op : post_ops) {
    float low = 0.f, high = std::numeric_limits<float>::infinity();
    if (op.kind == PostOp::Kind::clamp) {
      low = op.alpha;
      high = op.beta;
    } else if (op.kind != PostOp::Kind::relu) {
      return refuse("post-op other than relu or clamp");
    }
    if (std::isnan(low) || std::isnan(high)) return refuse("clamp with a NaN bound");
    bounds.low = std::min(std::max(bounds.low, low), high);
    bounds.high = std::min(std::max(bounds.high, low), high);
  }
  return bounds;
}

int8_t quantized_bound(float real, float scale, int32_t zero_point) {
  const float v = std::nearbyint(real / scale) + static_cast<float>(zero_point);
  return v <= -128.f ? -128 : v >= 127.f ? 127 : static_cast<int8_t>(v);
}

Result<std::vector<int32_t>> fold_bias(const LinearProblem& p) {
  if (!std::isnormal(p.output_scale) || p.output_scale < 0.f)
    return refuse("output scale ", p.output_scale, "; needs a positive normal float");
  const int32_t output_zero_point = s8_zero_point(p.output_dtype, p.output_zero_point);
  if (output_zero_point < -128 || output_zero_point > 127)
    return refuse("output zero point ", p.output_zero_point, " outside the output type");
  const int32_t input_zero_point = s8_zero_point(p.input_dtype, p.input_zero_point);
  const double low = -128.0 - input_zero_point, high = 127.0 - input_zero_point;
  std::vector<int32_t> bias(static_cast<size_t>(p.n));
  for (int64_t n = 0; n < p.n; ++n) {
    const float weight_scale = p.weight_scale[p.weight_scale_size == 1 ? 0 : n];
    const float product = p.input_scale * weight_scale;
    const float scale = product / p.output_scale;
    if (!std::isnormal(product))
      return refuse("input scale * weight scale ", product, " in channel ", n, "; needs a normal float");
    if (!(scale < 256.f))
      return refuse("input scale * weight scale / output scale ", scale, " in channel ", n, "; needs < 256");
    int64_t positive = 0, negative = 0;
    for (int64_t k = 0; k < p.k; ++k) {
      const int32_t w = p.weight[n * p.k + k];
      (w > 0 ? positive : negative) += w;
    }
    const double folded = p.bias == nullptr
                              ? 0.0
                              : std::nearbyint(static_cast<double>(p.bias[n]) /
                                               (static_cast<double>(p.input_scale) * weight_scale));
    const double sum_max = high * positive + low * negative + folded;
    const double sum_min = low * positive + high * negative + folded;
    const double magnitude = std::max(sum_max, -sum_min);
    if (!(magnitude <= 2147483647.0 && std::fabs(folded) <= 2147483647.0))
      return refuse("bias ", p.bias == nullptr ? 0.f : p.bias[n], " in channel ", n,
                    " does not fit the int32 accumulator");
    // The AVX-512 kernels add the zero point after a float to int32 conversion.
    if (!(magnitude * scale < 2147483392.0))
      return refuse("accumulator / output scale may leave int32 in channel ", n);
    bias[n] = static_cast<int32_t>(folded);
  }
  return bias;
}

}  // namespace tae::xnnpack
