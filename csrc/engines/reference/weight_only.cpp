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

  // One group of a row: x = high_step * h + low_step * l.
  struct Group {
    float high_step = 0.f, low_step = 0.f;
    bool two_planes = false;
  };
  struct Row {
    std::vector<int32_t> high, low;
    std::vector<Group> groups;
    float scale = 1.f;  // r
  };

  [[gnu::noinline]] void run_rows(const WeightOnlyArgs& args) const {
    std::vector<float> x(static_cast<size_t>(p_.k));
    for (int64_t m = 0; m < args.m; ++m) {
      for (int64_t k = 0; k < p_.k; ++k) {
        const int64_t at = m * args.input_stride + k;
        x[static_cast<size_t>(k)] = p_.dtype == DType::bf16
                                        ? from_bf16(static_cast<const uint16_t*>(args.input)[at])
                                        : static_cast<const float*>(args.input)[at];
      }
      const Row row = quantize(x);
      for (int64_t n = 0; n < p_.n; ++n) {
        const float scale = p_.bits == 8 ? row.scale * scale_[static_cast<size_t>(n)] : row.scale;
        float y = dot(row, n) * scale;
        if (!bias_.empty()) y = y + bias_[static_cast<size_t>(n)];
        if (p_.dtype == DType::bf16)
          static_cast<uint16_t*>(args.output)[m * p_.n + n] = to_bf16(y);
        else
          static_cast<float*>(args.output)[m * p_.n + n] = y;
      }
    }
  }

  Row quantize(const std::vector<float>& x) const {
    Row row{std::vector<int32_t>(x.size()), std::vector<int32_t>(x.size()), {}, 1.f};
    float largest = 0.f;
    for (int64_t k = 0; k < p_.k; k += p_.input_group()) {
      row.groups.push_back(quantize_group(x, k, std::min(p_.k, k + p_.input_group()), &row));
      const float step = row.groups.back().high_step;
      if (step > largest) largest = step;
    }
    if (largest > 0.f) row.scale = std::exp2f(static_cast<float>(std::ilogb(largest)));
    for (Group& g : row.groups) {
      g.high_step = g.high_step / row.scale;
      g.low_step = g.low_step / row.scale;
    }
    return row;
  }

  // Values [begin, end); steps are NaN when one is not finite.
  Group quantize_group(const std::vector<float>& x, int64_t begin, int64_t end, Row* row) const {
    float largest = 0.f;
    for (int64_t k = begin; k < end; ++k) {
      const float value = x[static_cast<size_t>(k)];
      if (!std::isfinite(value)) return {std::numeric_limits<float>::quiet_NaN(), 0.f, false};
      largest = std::max(largest, std::fabs(value));
    }
    Group g;
    g.high_step = std::max(largest / 127.f, std::numeric_limits<float>::min());
    const float inverse = 1.f / g.high_step;
    int64_t squares = 0;
    for (int64_t k = begin; k < end; ++k) {
      const int32_t h = static_cast<int32_t>(std::nearbyintf(x[static_cast<size_t>(k)] * inverse));
      row->high[static_cast<size_t>(k)] = h;
      squares += h * h;
    }
    const float limit = p_.two_planes_below() * static_cast<float>(end - begin);
    if (largest == 0.f || static_cast<float>(squares) >= limit) return g;
    g.two_planes = true;
    g.low_step = std::max(largest / 32639.f, std::numeric_limits<float>::min());
    g.high_step = 256.f * g.low_step;
    const float low_inverse = 1.f / g.low_step;
    for (int64_t k = begin; k < end; ++k) {
      const int32_t q = static_cast<int32_t>(std::nearbyintf(x[static_cast<size_t>(k)] * low_inverse));
      const int32_t h = (q + 32896) / 256 - 128;
      row->high[static_cast<size_t>(k)] = h;
      row->low[static_cast<size_t>(k)] = q - 256 * h;
    }
    return g;
  }

  float dot(const Row& row, int64_t n) const {
    float v = 0.f;
    for (size_t g = 0; g < row.groups.size(); ++g) {
      const int64_t begin = static_cast<int64_t>(g) * p_.input_group();
      int64_t high = 0, low = 0;
      for (int64_t k = begin; k < std::min(p_.k, begin + p_.input_group()); ++k) {
        const int64_t w = weight_[static_cast<size_t>(n * p_.k + k)];
        high += row.high[static_cast<size_t>(k)] * w;
        low += row.low[static_cast<size_t>(k)] * w;
      }
      const float scale = p_.bits == 8 ? 1.f : scale_[static_cast<size_t>(n * p_.groups()) + g];
      v = v + static_cast<float>(high) * row.groups[g].high_step * scale;
      if (row.groups[g].two_planes) v = v + static_cast<float>(low) * row.groups[g].low_step * scale;
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
