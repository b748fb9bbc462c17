// One weight as XNNPACK's fully-connected operator: packed once, run by any number of
// threads at once. Quantized output: qs8-qc8w; float output, dynamic or static input:
// qd8-f32-qc8w. Inputs are int8 rows with room behind them for XNNPACK's over-reads.
#pragma once

#include <vector>

#include "engines/linear.h"
#include "engines/xnnpack/operator_pool.h"
#include "engines/xnnpack/static_rule.h"
#include "engines/xnnpack/xnnpack.h"

namespace tae::xnnpack {

class FullyConnected {
 public:
  // input_stride: bytes between int8 rows of input.
  FullyConnected(const LinearProblem& p, const RealBounds& bounds, int64_t input_stride);

  // Empty, or why XNNPACK cannot do it. Throws std::bad_alloc.
  std::string pack(const LinearProblem& p);

  // output: int8 or float [rows][n]. params: one for each row, with room for
  // XNN_EXTRA_QUANTIZATION_PARAMS more; not used with a quantized output.
  void run(int64_t rows, const int8_t* input, void* output, xnn_quantization_params* params) const;
  // The same for one row and a float output, without post-ops; slow.
  void run_unbounded(const int8_t* input, float* output, xnn_quantization_params params) const;

  size_t bytes() const { return weights_.bytes() + weight_scale_.size() * sizeof(float); }

 private:
  [[gnu::noinline]] xnn_status create(const int8_t* kernel, const float* bias_f32, const int32_t* bias_s32,
                                      const RealBounds& bounds, xnn_operator_t* op) const;
  // A further operator on the weights that are packed already.
  xnn_operator_t create_again(const RealBounds& bounds) const;
  void call(xnn_operator_t op, int64_t rows, const int8_t* input, void* output,
            xnn_quantization_params* params) const;

  const int64_t k_, n_, stride_;
  const bool quantized_;  // output
  const float input_scale_, output_scale_;
  const int32_t input_zero_point_, output_zero_point_;  // s8 domain
  const RealBounds bounds_;
  std::vector<float> weight_scale_;  // [n]
  mutable PackedWeights weights_;

  mutable OperatorPool pool_{/*most=*/16};  // all share the packed weights
};

}  // namespace tae::xnnpack
