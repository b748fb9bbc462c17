// The output side of a static linear problem where kernels/byte_rule.h applies: what a GEMM
// kernel needs to write bytes instead of sums.
#pragma once

#include <cstdint>
#include <vector>

#include "engines/output_rule.h"
#include "kernels/gemm_block.h"

namespace tae::native {

class ByteOutput {
 public:
  ByteOutput(const LinearProblem& p, const OutputRule& output, const kernels::PackedWeight& weight);
  // Whether it holds for this call: its qparams of `other` may not allow it.
  bool possible(const LinearArgs& args) const;
  // Of the columns of one panel; addend and output are the caller's.
  kernels::ByteFinish finish(int64_t panel) const;
  size_t bytes() const { return 12 * scale_.size(); }

 private:
  std::vector<int32_t> start_;  // [64 * panels], as the next two; or empty
  std::vector<float> scale_, bias_;
  kernels::ByteRule rule_;
  bool adds_ = false;   // `other` comes first, then the rule
  double largest_ = 0;  // before that
  double most_ = 0;     // what the rule takes
};

}  // namespace tae::native
