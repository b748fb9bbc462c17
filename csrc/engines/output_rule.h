// The output side of a linear problem, shared by the engines that compute raw int32
// accumulators themselves and leave the rest to kernels/epilogue.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engines/linear.h"
#include "kernels/epilogue.h"
#include "kernels/gemm.h"

namespace tae {

// True when a weight zero point is given and is not 0 everywhere.
bool has_weight_zero_point(const LinearProblem& p);

// Own copies of scales, bias and the rest: the problem's pointers die after packing.
class OutputRule {
 public:
  explicit OutputRule(const LinearProblem& p);

  // For one call; points into this object and into `weight`.
  kernels::EpilogueParams params(const kernels::PackedWeight& weight, const LinearArgs& args) const;
  // Where elements from `element` on are written, and those of a residual read, in rows of `columns`;
  // args are LinearArgs or ConvArgs.
  template <class Args>
  void place(const Args& args, int64_t element, int64_t columns, kernels::EpilogueTile* t) const {
    t->output = static_cast<uint8_t*>(args.output) + element * static_cast<int64_t>(size_of(dtype_));
    t->output_stride = columns;
    if (args.other != nullptr)
      t->other =
          static_cast<const uint8_t*>(args.other) + element * static_cast<int64_t>(size_of(args.other_dtype));
    t->other_stride = columns;
  }
  DType dtype() const { return dtype_; }
  // Of the post-op affine, [n]; or null.
  const float* affine_weight() const { return affine_weight_.empty() ? nullptr : affine_weight_.data(); }
  const float* affine_bias() const { return affine_bias_.empty() ? nullptr : affine_bias_.data(); }
  bool has_post_ops() const { return !post_ops_.empty(); }
  bool has_weight_zero_point() const { return !weight_zero_point_.empty(); }
  size_t bytes() const {
    return 4 * (scale_.size() + bias_.size() + slope_.size() + 2 * affine_weight_.size() +
                weight_zero_point_.size());
  }

 private:
  std::vector<float> scale_;  // 1 or n
  std::vector<float> bias_;   // n or empty
  std::vector<float> slope_;  // n or empty, as the next two
  std::vector<float> affine_weight_, affine_bias_;
  std::vector<int32_t> weight_zero_point_;  // n, or empty when all are 0
  DType dtype_;
  float output_scale_;
  int32_t output_zero_point_;
  PostOps post_ops_;
};

}  // namespace tae
