// Scalar form of the post-ops: the definition that the vector form
// (post_ops-inl.h) reproduces bit for bit.
#pragma once

#include "core/post_ops.h"

namespace tae::kernels {

// One post-op on one value; `operand` is the dequantized one of `add`, the slope of `prelu` or
// the weight of `affine`, whose bias is `shift`. The caller provides the default floating-point environment
// (vec_float_env.h).
float apply_post_op(const PostOp& op, float x, float operand, float shift = 0.f);

// exp(t) for t <= 0 as post-ops compute it; NaN for NaN.
float exp_nonpositive(float t);

}  // namespace tae::kernels
