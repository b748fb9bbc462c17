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
  bool possible() const { return !scale_.empty(); }
  // Of the columns of one panel; the rest of the structure is the caller's.
  kernels::ByteFinish finish(int64_t panel) const;
  size_t bytes() const { return 12 * scale_.size(); }

 private:
  std::vector<int32_t> start_;  // [64 * panels], as the next two; or empty
  std::vector<float> scale_, bias_;
  kernels::ByteRule rule_;
};

}  // namespace tae::native
