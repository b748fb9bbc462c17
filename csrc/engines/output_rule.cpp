#include "engines/output_rule.h"

#include <algorithm>

namespace tae {

bool has_weight_zero_point(const LinearProblem& p) {
  if (p.weight_zero_point == nullptr) return false;
  return std::any_of(p.weight_zero_point, p.weight_zero_point + p.weight_scale_size,
                     [](int32_t zp) { return zp != 0; });
}

OutputRule::OutputRule(const LinearProblem& p)
    : scale_(p.weight_scale, p.weight_scale + p.weight_scale_size),
      dtype_(p.output_dtype),
      output_scale_(p.output_scale),
      output_zero_point_(p.output_zero_point),
      post_ops_(p.post_ops) {
  if (p.bias != nullptr) bias_.assign(p.bias, p.bias + p.n);
  if (p.slope != nullptr) slope_.assign(p.slope, p.slope + p.n);
  if (p.affine_weight != nullptr) {
    affine_weight_.assign(p.affine_weight, p.affine_weight + p.n);
    affine_bias_.assign(p.affine_bias, p.affine_bias + p.n);
  }
  if (!tae::has_weight_zero_point(p)) return;
  weight_zero_point_.assign(static_cast<size_t>(p.n), p.weight_zero_point[0]);
  if (p.weight_scale_size != 1) weight_zero_point_.assign(p.weight_zero_point, p.weight_zero_point + p.n);
}

kernels::EpilogueParams OutputRule::params(const kernels::PackedWeight& weight,
                                           const LinearArgs& args) const {
  kernels::EpilogueParams e;
  e.k = weight.k();
  e.weight_scale = scale_.data();
  e.weight_scale_stride = scale_.size() == 1 ? 0 : 1;
  e.bias = bias_.empty() ? nullptr : bias_.data();
  e.slope = slope_.empty() ? nullptr : slope_.data();
  e.affine_weight = affine_weight();
  e.affine_bias = affine_bias();
  e.column_sum = weight.column_sum();
  e.weight_zero_point = weight_zero_point_.empty() ? nullptr : weight_zero_point_.data();
  e.post_ops = post_ops_.data();
  e.num_post_ops = static_cast<int>(post_ops_.size());
  e.output_dtype = dtype_;
  e.output_scale = output_scale_;
  e.output_zero_point = output_zero_point_;
  e.other_dtype = args.other_dtype;
  e.other_scale = args.other_scale;
  e.other_zero_point = args.other_zero_point;
  return e;
}

}  // namespace tae
