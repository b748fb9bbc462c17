#include "engines/native/byte_output.h"

#include <algorithm>
#include <cmath>

#include "kernels/requantize.h"

namespace tae::native {

ByteOutput::ByteOutput(const LinearProblem& p, const OutputRule& output,
                       const kernels::PackedWeight& weight) {
  if (p.dynamic || p.qparams_in_call || output.has_weight_zero_point()) return;
  const kernels::EpilogueParams e = output.params(weight, {});
  if (!kernels::make_byte_rule(e, &rule_)) return;
  const size_t columns = static_cast<size_t>(weight.panels() * kernels::kPanelColumns);
  std::vector<int32_t> start(columns);
  std::vector<float> scale(columns), bias(columns);
  // The input in the u8 domain, as the kernels see it.
  const int32_t zero_point = p.input_zero_point + (p.input_dtype == DType::qs8 ? 128 : 0);
  double most = 0;
  for (size_t n = 0; n < static_cast<size_t>(weight.n()); ++n) {
    const uint32_t product = static_cast<uint32_t>(zero_point) * static_cast<uint32_t>(e.column_sum[n]);
    start[n] = static_cast<int32_t>(0u - product);
    scale[n] = p.input_scale * e.weight_scale[static_cast<int64_t>(n) * e.weight_scale_stride];
    if (e.bias != nullptr) bias[n] = e.bias[n];
    const double largest_sum = 255.0 * 128.0 * static_cast<double>(p.k);
    most = std::max(most, largest_sum * std::fabs(double{scale[n]}) + std::fabs(double{bias[n]}));
  }
  if (!(most < kernels::kMostQuotient * e.output_scale)) return;
  start_ = std::move(start);
  scale_ = std::move(scale);
  bias_ = std::move(bias);
}

kernels::ByteFinish ByteOutput::finish(int64_t panel) const {
  const int64_t first = panel * kernels::kPanelColumns;
  kernels::ByteFinish f;
  f.start = start_.data() + first;
  f.scale = scale_.data() + first;
  f.bias = bias_.data() + first;
  f.rule = rule_;
  return f;
}

}  // namespace tae::native
