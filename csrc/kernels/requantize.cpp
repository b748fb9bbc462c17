#include "kernels/requantize.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/vec_float_env.h"

namespace tae::kernels {
namespace {

constexpr float kLeastScale = 0x1p-60f, kMostScale = 0x1p60f;
constexpr int kNeighbours = 4;  // floats on each side of (k + 0.5) * scale

float by_division(float x, float scale) { return std::nearbyint(x / scale); }
float by_products(float x, const ScaleInverse& i) { return std::nearbyint(std::fma(x, i.high, x * i.low)); }

// Both ways agree on the floats around (k + 0.5) * scale, which include the step to k + 1.
bool agrees(float scale, int32_t k, const ScaleInverse& inverse) {
  float x = static_cast<float>((k + 0.5) * scale);
  for (int i = 0; i < kNeighbours; ++i) x = std::nextafter(x, 0.f);
  if (by_division(x, scale) > static_cast<float>(k)) return false;
  for (int i = 0; i <= 2 * kNeighbours; ++i) {
    if (by_division(x, scale) != by_products(x, inverse)) return false;
    x = std::nextafter(x, kMostScale * 1024.f);
  }
  return by_division(x, scale) > static_cast<float>(k);
}

[[gnu::noinline]] bool search(float scale, int32_t bound, ScaleInverse* inverse) {
  if (!(scale >= kLeastScale && scale <= kMostScale)) return false;
  const double exact = 1.0 / scale;
  inverse->high = static_cast<float>(exact);
  inverse->low = static_cast<float>(exact - inverse->high);
  for (int32_t k = 0; k <= bound; ++k)  // negative quotients are mirrored
    if (!agrees(scale, k, *inverse)) return false;
  return true;
}

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
  const int32_t bound = std::max(p.output_zero_point - min, max - p.output_zero_point);
  if (p.output_zero_point < min || p.output_zero_point > max) return false;
  if (!search(p.output_scale, bound, &rule->inverse)) return false;
  rule->zero_point = static_cast<int16_t>(p.output_zero_point - min);
  rule->least = quantize(least, p);
  rule->most = quantize(most, p);
  rule->flip = p.output_dtype == DType::qs8 ? 0x80 : 0;
  return true;
}

}  // namespace

bool find_inverse(float scale, int32_t bound, ScaleInverse* inverse) {
  const DefaultFloatEnv env;
  return search(scale, bound, inverse);
}

bool make_byte_rule(const EpilogueParams& params, ByteRule* rule) {
  const DefaultFloatEnv env;
  return make_rule(params, rule);
}

}  // namespace tae::kernels
