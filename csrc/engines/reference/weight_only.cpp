// The rule of engines/weight_only.h as plain loops: one thread, baseline instructions,
// sums of 64 bits, so that it accepts every shape.
#include "engines/weight_only.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "engines/reference/bf16.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

using reference::from_bf16;
using reference::to_bf16;

class ReferenceWeightOnly final : public WeightOnlyImpl {
 public:
  explicit ReferenceWeightOnly(const WeightOnlyProblem& p)
      : p_(p), weight_(static_cast<size_t>(p.n * p.k)), scale_(scales(p)) {
    for (int64_t n = 0; n < p.n; ++n)
      for (int64_t k = 0; k < p.k; ++k) weight_[static_cast<size_t>(n * p.k + k)] = weight_of(p, n, k);
    if (p.bias != nullptr) bias_.assign(p.bias, p.bias + p.n);
    p_.weight = nullptr;
    p_.weight_scale = nullptr;
    p_.bias = nullptr;
  }

  void run(const WeightOnlyArgs& args) const override {
    const kernels::DefaultFloatEnv env;
    run_rows(args);
  }
  const char* engine() const override { return "reference"; }
  std::string description() const override { return "plain loops, int64 sums"; }
  size_t packed_bytes() const override {
    return weight_.size() + sizeof(float) * (scale_.size() + bias_.size());
  }

 private:
  static std::vector<float> scales(const WeightOnlyProblem& p) {
    return {p.weight_scale, p.weight_scale + (p.bits == 8 ? p.n : p.n * p.groups())};
  }
  static int8_t weight_of(const WeightOnlyProblem& p, int64_t n, int64_t k) {
    if (p.bits == 8) return static_cast<const int8_t*>(p.weight)[n * p.k + k];
    const int byte = static_cast<const uint8_t*>(p.weight)[n * ((p.k + 1) / 2) + k / 2];
    return static_cast<int8_t>((k % 2 == 0 ? byte & 15 : byte >> 4) - 8);
  }

  [[gnu::noinline]] void run_rows(const WeightOnlyArgs& args) const {
    std::vector<float> x(static_cast<size_t>(p_.k));
    std::vector<int32_t> q(x.size());
    for (int64_t m = 0; m < args.m; ++m) {
      for (int64_t k = 0; k < p_.k; ++k) {
        const int64_t at = m * args.input_stride + k;
        x[static_cast<size_t>(k)] = p_.dtype == DType::bf16
                                        ? from_bf16(static_cast<const uint16_t*>(args.input)[at])
                                        : static_cast<const float*>(args.input)[at];
      }
      const float s = quantize(x, &q);
      for (int64_t n = 0; n < p_.n; ++n) {
        const float scale = p_.bits == 8 ? s * scale_[static_cast<size_t>(n)] : s;
        float y = (p_.bits == 8 ? dot8(q, n) : dot4(q, n)) * scale;
        if (!bias_.empty()) y = y + bias_[static_cast<size_t>(n)];
        if (p_.dtype == DType::bf16)
          static_cast<uint16_t*>(args.output)[m * p_.n + n] = to_bf16(y);
        else
          static_cast<float*>(args.output)[m * p_.n + n] = y;
      }
    }
  }

  // Returns the scale; NaN for a row that is not finite.
  float quantize(const std::vector<float>& x, std::vector<int32_t>* q) const {
    const float limit = p_.input_bits == 16 ? 32639.f : 127.f;
    float largest = 0.f;
    for (float value : x) {
      if (!std::isfinite(value)) {
        std::fill(q->begin(), q->end(), 0);
        return std::numeric_limits<float>::quiet_NaN();
      }
      largest = std::max(largest, std::fabs(value));
    }
    const float scale = largest == 0.f ? 1.f : std::max(largest / limit, std::numeric_limits<float>::min());
    const float inverse = 1.f / scale;
    for (size_t k = 0; k < x.size(); ++k)
      (*q)[k] = static_cast<int32_t>(std::nearbyintf(std::max(std::min(x[k] * inverse, limit), -limit)));
    return scale;
  }

  float dot8(const std::vector<int32_t>& q, int64_t n) const {
    int64_t high = 0, low = 0;
    for (int64_t k = 0; k < p_.k; ++k) {
      const int32_t value = q[static_cast<size_t>(k)];
      const int32_t h = p_.input_bits == 16 ? (value + 32896) / 256 - 128 : value;
      const int64_t w = weight_[static_cast<size_t>(n * p_.k + k)];
      high += h * w;
      low += (value - 256 * h) * w;
    }
    if (p_.input_bits == 8) return static_cast<float>(high);
    const float shifted = static_cast<float>(high) * 256.f;
    return shifted + static_cast<float>(low);
  }

  float dot4(const std::vector<int32_t>& q, int64_t n) const {
    float v = 0.f;
    for (int64_t g = 0; g < p_.groups(); ++g) {
      int64_t sum = 0;
      for (int64_t k = g * p_.group; k < std::min(p_.k, (g + 1) * p_.group); ++k)
        sum += int64_t{q[static_cast<size_t>(k)]} * weight_[static_cast<size_t>(n * p_.k + k)];
      const float term = static_cast<float>(sum) * scale_[static_cast<size_t>(n * p_.groups() + g)];
      v = v + term;
    }
    return v;
  }

  WeightOnlyProblem p_;
  std::vector<int8_t> weight_;  // [n][k]
  std::vector<float> scale_;
  std::vector<float> bias_;
};

}  // namespace

Result<WeightOnlyImplPtr> make_weight_only_reference(const WeightOnlyProblem& p) {
  return WeightOnlyImplPtr(std::make_shared<ReferenceWeightOnly>(p));
}

}  // namespace tae
