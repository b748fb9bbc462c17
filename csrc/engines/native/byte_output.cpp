#include "engines/native/byte_output.h"

#include <algorithm>
#include <cmath>

#include "kernels/requantize.h"

namespace tae::native {

ByteOutput::ByteOutput(const LinearProblem& p, const OutputRule& output,
                       const kernels::PackedWeight& weight) {
  if (p.dynamic || p.qparams_in_call || output.has_weight_zero_point()) return;
  kernels::EpilogueParams e = output.params(weight, {});
  adds_ = e.num_post_ops > 0 && e.post_ops[0].kind == PostOp::Kind::add;
  if (adds_) {  // the rest is as it would be without
    ++e.post_ops;
    --e.num_post_ops;
  }
  if (!kernels::make_byte_rule(e, &rule_)) return;
  const size_t columns = static_cast<size_t>(weight.panels() * kernels::kPanelColumns);
  std::vector<int32_t> start(columns);
  std::vector<float> scale(columns), bias(columns);
  // The input in the u8 domain, as the kernels see it.
  const int32_t zero_point = p.input_zero_point + (p.input_dtype == DType::qs8 ? 128 : 0);
  for (size_t n = 0; n < static_cast<size_t>(weight.n()); ++n) {
    const uint32_t product = static_cast<uint32_t>(zero_point) * static_cast<uint32_t>(e.column_sum[n]);
    start[n] = static_cast<int32_t>(0u - product);
    scale[n] = p.input_scale * e.weight_scale[static_cast<int64_t>(n) * e.weight_scale_stride];
    if (e.bias != nullptr) bias[n] = e.bias[n];
    const double largest_sum = 255.0 * 128.0 * static_cast<double>(p.k);
    largest_ = std::max(largest_, largest_sum * std::fabs(double{scale[n]}) + std::fabs(double{bias[n]}));
  }
  most_ = kernels::kMostQuotient * e.output_scale;
  if (!(largest_ < most_)) return;
  start_ = std::move(start);
  scale_ = std::move(scale);
  bias_ = std::move(bias);
}

bool ByteOutput::possible(const LinearArgs& args) const {
  if (scale_.empty() || !adds_) return !scale_.empty();
  if (!is_quantized(args.other_dtype)) return false;
  const double from_zero = 256.0 + std::fabs(static_cast<double>(args.other_zero_point));
  return largest_ + from_zero * std::fabs(double{args.other_scale}) < most_;
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
