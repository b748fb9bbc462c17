// y = quantize(relu(batch_norm(s_x * s_w[n] * sum_k (x[m][k] - zp_x) * (w[n][k] - zp_w[n]) + bias[n])))
//
// input [*, K] uint8 or int8, weight [N, K] int8, output [*, N]; the batch normalization is
// over the N columns and becomes their scales and bias (ops/batch_norm.h) when the weight is
// packed. relu in linear_bn_relu. Every rounding is in engines/linear.h.
#include "core/autograd.h"
#include "ops/linear_common.h"

namespace tae {
namespace {

using at::Tensor;
using OptTensor = std::optional<at::Tensor>;
using OptDtype = std::optional<at::ScalarType>;

const OptTensor kNone;

template <OpName Name, bool Relu>
Tensor linear_with_bn(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& weight,
                      const Tensor& weight_scale, const OptTensor& weight_zero_point, const OptTensor& bias,
                      const Tensor& running_mean, const Tensor& running_var, const OptTensor& bn_weight,
                      const OptTensor& bn_bias, double eps, double output_scale, int64_t output_zero_point,
                      OptDtype output_dtype) {
  const StaticArgs c{input, input_scale,  input_zero_point,  weight,      weight_scale, weight_zero_point,
                     bias,  output_scale, output_zero_point, output_dtype};
  const BatchNorm bn{running_mean, running_var, bn_weight, bn_bias, eps};
  LinearBaked baked = bake_arguments(Name.c_str(), c, Relu ? "relu" : "");
  baked.bn = &bn;
  return run_linear(baked, input, {kNone});
}

constexpr auto linear_bn = linear_with_bn<"linear_bn", false>;
constexpr auto linear_bn_relu = linear_with_bn<"linear_bn_relu", true>;

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "linear_bn(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, Tensor running_mean, "
      "Tensor running_var, Tensor? bn_weight, Tensor? bn_bias, float eps, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None) -> Tensor");
  m.def(
      "linear_bn_relu(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, Tensor running_mean, "
      "Tensor running_var, Tensor? bn_weight, Tensor? bn_bias, float eps, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("linear_bn", TORCH_FN(linear_bn));
  m.impl("linear_bn_relu", TORCH_FN(linear_bn_relu));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("linear_bn", TORCH_FN((InferenceOnly<"linear_bn", linear_bn>::call)));
  m.impl("linear_bn_relu", TORCH_FN((InferenceOnly<"linear_bn_relu", linear_bn_relu>::call)));
}

}  // namespace tae
