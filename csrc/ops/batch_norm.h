// Batch normalization of the output of a product, as numbers of its columns.
//
//   factor[n] = gamma[n] * (1 / sqrt(var[n] + eps))        f32, as every step
//   s_w[n]    = s_w[n] * factor[n]                         any sign, or 0
//   bias[n]   = (bias[n] - mean[n]) * factor[n] + beta[n]
//
// An absent gamma is 1, an absent beta or bias 0. The integer weight stays as it is.
#pragma once

#include <vector>

#include "core/checks.h"

namespace tae {

// References live as long as the call.
struct BatchNorm {
  const at::Tensor& running_mean;              // [n] float32
  const at::Tensor& running_var;               // [n] float32
  const std::optional<at::Tensor>& bn_weight;  // gamma, [n] float32
  const std::optional<at::Tensor>& bn_bias;    // beta, [n] float32
  double eps;
};

// Dtypes and lengths; `what` says where n comes from.
void check_batch_norm(const char* op, const BatchNorm& bn, int64_t n, const char* what);

// Checks the values and folds: `scale` of 1 or n becomes n, `bias` of n or none n.
void fold_batch_norm(const char* op, const BatchNorm& bn, int64_t n, std::vector<float>* scale,
                     std::vector<float>* bias);

}  // namespace tae
