#include "ops/batch_norm.h"

#include <cmath>

#include "core/qparams.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

void check_vector(const Arg& arg, const at::Tensor& t, int64_t n, const char* what) {
  check_tensor(arg, t, {at::kFloat});
  check_rank(arg, t, 1);
  check_size(arg, t, 0, n, what);
}

struct Folded {
  float scale;
  float bias;
};

// Opaque to the compiler, which would move arithmetic across DefaultFloatEnv.
[[gnu::noipa]] Folded fold(float scale, float bias, float mean, float var, float eps, const float* gamma,
                           const float* beta) {
  const float inverse = 1.f / std::sqrt(var + eps);
  const float factor = gamma == nullptr ? inverse : *gamma * inverse;
  const float shifted = (bias - mean) * factor;
  return {scale * factor, beta == nullptr ? shifted : shifted + *beta};
}

[[gnu::noipa]] bool is_variance(float var, float eps) { return var + eps > 0.f; }

}  // namespace

void check_batch_norm(const char* op, const BatchNorm& bn, int64_t n, const char* what) {
  check_vector({op, "running_mean"}, bn.running_mean, n, what);
  check_vector({op, "running_var"}, bn.running_var, n, what);
  if (present(bn.bn_weight)) check_vector({op, "bn_weight"}, *bn.bn_weight, n, what);
  if (present(bn.bn_bias)) check_vector({op, "bn_bias"}, *bn.bn_bias, n, what);
}

void fold_batch_norm(const char* op, const BatchNorm& bn, int64_t n, std::vector<float>* scale,
                     std::vector<float>* bias) {
  const float eps = nearest_float(bn.eps);
  TAE_CHECK_VALUE(eps >= 0.f && std::isfinite(eps), (Arg{op, "eps"}),
                  "be a finite float32 number, at least 0", bn.eps);
  const std::vector<float> mean = finite_values({op, "running_mean"}, bn.running_mean);
  const std::vector<float> var = finite_values({op, "running_var"}, bn.running_var);
  std::vector<float> gamma, beta;
  if (present(bn.bn_weight)) gamma = finite_values({op, "bn_weight"}, *bn.bn_weight);
  if (present(bn.bn_bias)) beta = finite_values({op, "bn_bias"}, *bn.bn_bias);
  const size_t count = static_cast<size_t>(n);
  if (scale->size() != count) scale->resize(count, scale->empty() ? 1.f : scale->front());
  bias->resize(count, 0.f);
  const kernels::DefaultFloatEnv env;
  for (size_t i = 0; i < count; ++i) {
    TAE_CHECK_VALUE(is_variance(var[i], eps), (Arg{op, "running_var"}), "hold values above -eps",
                    c10::str(var[i], " at position ", i));
    const Folded f = fold((*scale)[i], (*bias)[i], mean[i], var[i], eps, gamma.empty() ? nullptr : &gamma[i],
                          beta.empty() ? nullptr : &beta[i]);
    TAE_CHECK_VALUE(std::isfinite(f.scale) && std::isfinite(f.bias), (Arg{op, "running_var"}),
                    "give a finite scale and bias when folded",
                    c10::str(var[i], " at position ", i, ": ", f.scale, " and ", f.bias));
    (*scale)[i] = f.scale;
    (*bias)[i] = f.bias;
  }
}

}  // namespace tae
