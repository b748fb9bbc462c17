// What the elementwise and pooling ops share: qparams of their operands, post-ops and the
// output's qparams.
#pragma once

#include "core/post_ops.h"
#include "kernels/elementwise.h"
#include "ops/quantize_common.h"

namespace tae {

// A checked operand; data is set by the op.
kernels::Operand check_operand(const Arg& arg, const Arg& scale_arg, const Arg& zero_point_arg,
                               const at::Tensor& t, double scale, int64_t zero_point);

// What happens to a real value, with the memory that it points to.
struct OutputFinish {
  PostOps post_ops;
  kernels::Finish finish;
  at::ScalarType dtype = at::kByte;
};

// Checks of output_scale, output_zero_point (1 and 0 for a float output), output_dtype
// (default: the input's) and post_ops; `add` is refused.
void check_output(const char* op, at::ScalarType input_dtype, double scale, int64_t zero_point,
                  std::optional<at::ScalarType> dtype, std::string_view post_ops, at::ArrayRef<double> args,
                  OutputFinish* result);

// Finish::streams of this result.
inline bool streams(const at::Tensor& output) { return static_cast<int64_t>(output.nbytes()) > l3_bytes(); }

}  // namespace tae
