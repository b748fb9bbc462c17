#include "kernels/requantize.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/two_products.h"
#include "kernels/vec_float_env.h"

namespace tae::kernels {
namespace {

// The integer of a real value by the rule in engines/linear.h, in the u8 domain.
uint8_t quantize(float r, const EpilogueParams& p) {
  const float low = static_cast<float>(quant_min(p.output_dtype) - p.output_zero_point);
  const float high = static_cast<float>(quant_max(p.output_dtype) - p.output_zero_point);
  const float q = std::nearbyint(std::clamp(r / p.output_scale, low, high));
  return static_cast<uint8_t>(static_cast<int32_t>(q) + p.output_zero_point - quant_min(p.output_dtype));
}

[[gnu::noinline]] bool make_rule(const EpilogueParams& p, ByteRule* rule) {
  if (!is_quantized(p.output_dtype)) return false;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  float least = -kInfinity, most = kInfinity;
  for (int i = 0; i < p.num_post_ops; ++i) {
    const PostOp& op = p.post_ops[i];
    const bool clamps = op.kind == PostOp::Kind::clamp;
    if (!clamps && op.kind != PostOp::Kind::relu) return false;
    const float low = clamps ? op.alpha : 0.f, high = clamps ? op.beta : kInfinity;
    if (std::isnan(low) || std::isnan(high)) return false;
    least = std::min(std::max(least, low), high);
    most = std::min(std::max(most, low), high);
  }
  const int32_t min = quant_min(p.output_dtype), max = quant_max(p.output_dtype);
  if (p.output_zero_point < min || p.output_zero_point > max) return false;
  if (!two_products_divide(p.output_scale)) return false;
  rule->inverse = scale_inverse(p.output_scale);
  rule->zero_point = static_cast<int16_t>(p.output_zero_point - min);
  rule->least = quantize(least, p);
  rule->most = quantize(most, p);
  rule->flip = p.output_dtype == DType::qs8 ? 0x80 : 0;
  return true;
}

}  // namespace

bool make_byte_rule(const EpilogueParams& params, ByteRule* rule) {
  const DefaultFloatEnv env;
  return make_rule(params, rule);
}

}  // namespace tae::kernels
