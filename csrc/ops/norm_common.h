// What the normalizations share: affine parameters, eps, and inputs of any kind.
#pragma once

#include "kernels/norm.h"
#include "ops/elementwise_common.h"

namespace tae {

constexpr std::initializer_list<at::ScalarType> kRealDtypes = {at::kByte, at::kChar, at::kFloat,
                                                               at::kBFloat16};

// Numbers of one parameter; null when it is None.
struct Parameter {
  at::Tensor owner;            // a contiguous copy when there had to be one
  std::vector<float> widened;  // of a bfloat16 tensor
  const float* data = nullptr;
};
// float32 or bfloat16 of these sizes, which come from `what`.
Parameter check_parameter(const Arg& arg, const std::optional<at::Tensor>& t, at::IntArrayRef sizes,
                          const char* what);

// Finite and at least 0.
double check_eps(const char* op, double eps);

// A checked input of 8 bits with qparams, or a float one, whose scale is 1 and zero point 0;
// data and stride are set by the op.
kernels::RealRows check_real(const Arg& arg, const Arg& scale_arg, const Arg& zero_point_arg,
                             const at::Tensor& t, double scale, int64_t zero_point);

// `size` > 0 values as [size / count][count] with one row stride; normalized dimensions are
// the last `dims`.
RowView norm_rows(const Arg& arg, const at::Tensor& t, size_t dims, int64_t count);

}  // namespace tae
