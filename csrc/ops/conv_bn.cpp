// y = quantize(relu(batch_norm(s_x * s_w[n] * sum (x - zp_x) * (w[n] - zp_w[n]) + bias[n])))
//
// The sum is that of ops/conv.cpp; the batch normalization becomes scales and bias of the
// columns (ops/batch_norm.h) when the weight is packed. relu in the `_relu` forms.
#include "core/autograd.h"
#include "ops/conv_common.h"

namespace tae {
namespace {

using at::IntArrayRef;
using at::Tensor;
using OptTensor = std::optional<at::Tensor>;
using OptDtype = std::optional<at::ScalarType>;

const OptTensor kNone;

Tensor run(const char* op, const StaticArgs& c, const BatchNorm& bn, const ConvNumbers& numbers,
           std::string_view post_ops) {
  LinearBaked baked = bake_arguments(op, c, post_ops);
  baked.bn = &bn;
  return run_conv(baked, numbers, c.input, {kNone});
}

template <OpName Name, int Rank, bool Relu>
Tensor conv_bn(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& weight,
               const Tensor& weight_scale, const OptTensor& weight_zero_point, const OptTensor& bias,
               const Tensor& running_mean, const Tensor& running_var, const OptTensor& bn_weight,
               const OptTensor& bn_bias, double eps, double output_scale, int64_t output_zero_point,
               OptDtype output_dtype, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
               int64_t groups) {
  return run(Name.c_str(),
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             {running_mean, running_var, bn_weight, bn_bias, eps},
             {Rank, false, stride, padding, {}, dilation, groups}, Relu ? "relu" : "");
}

template <OpName Name, int Rank>
Tensor conv_transpose_bn(const Tensor& input, double input_scale, int64_t input_zero_point,
                         const Tensor& weight, const Tensor& weight_scale, const OptTensor& weight_zero_point,
                         const OptTensor& bias, const Tensor& running_mean, const Tensor& running_var,
                         const OptTensor& bn_weight, const OptTensor& bn_bias, double eps,
                         double output_scale, int64_t output_zero_point, OptDtype output_dtype,
                         IntArrayRef stride, IntArrayRef padding, IntArrayRef output_padding, int64_t groups,
                         IntArrayRef dilation) {
  return run(Name.c_str(),
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             {running_mean, running_var, bn_weight, bn_bias, eps},
             {Rank, true, stride, padding, output_padding, dilation, groups}, "");
}

// The schema of one name; `rank` is the number of spatial dimensions.
std::string schema(const std::string& name, bool transposed, int rank) {
  const std::string n = "int[" + std::to_string(rank) + "] ";
  return name +
         "(Tensor input, float input_scale, int input_zero_point, Tensor weight, Tensor weight_scale, "
         "Tensor? weight_zero_point, Tensor? bias, Tensor running_mean, Tensor running_var, "
         "Tensor? bn_weight, Tensor? bn_bias, float eps, float output_scale, int output_zero_point, "
         "ScalarType? output_dtype=None, " +
         n + "stride=1, " + n + "padding=0, " +
         (transposed ? n + "output_padding=0, int groups=1, " + n + "dilation=1"
                     : n + "dilation=1, int groups=1") +
         ") -> Tensor";
}

constexpr auto conv1d_bn = conv_bn<"conv1d_bn", 1, false>;
constexpr auto conv2d_bn = conv_bn<"conv2d_bn", 2, false>;
constexpr auto conv3d_bn = conv_bn<"conv3d_bn", 3, false>;
constexpr auto conv1d_bn_relu = conv_bn<"conv1d_bn_relu", 1, true>;
constexpr auto conv2d_bn_relu = conv_bn<"conv2d_bn_relu", 2, true>;
constexpr auto conv3d_bn_relu = conv_bn<"conv3d_bn_relu", 3, true>;
constexpr auto conv_transpose1d_bn = conv_transpose_bn<"conv_transpose1d_bn", 1>;
constexpr auto conv_transpose2d_bn = conv_transpose_bn<"conv_transpose2d_bn", 2>;
constexpr auto conv_transpose3d_bn = conv_transpose_bn<"conv_transpose3d_bn", 3>;

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(schema("conv1d_bn", false, 1).c_str());
  m.def(schema("conv2d_bn", false, 2).c_str());
  m.def(schema("conv3d_bn", false, 3).c_str());
  m.def(schema("conv1d_bn_relu", false, 1).c_str());
  m.def(schema("conv2d_bn_relu", false, 2).c_str());
  m.def(schema("conv3d_bn_relu", false, 3).c_str());
  m.def(schema("conv_transpose1d_bn", true, 1).c_str());
  m.def(schema("conv_transpose2d_bn", true, 2).c_str());
  m.def(schema("conv_transpose3d_bn", true, 3).c_str());
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("conv1d_bn", TORCH_FN(conv1d_bn));
  m.impl("conv2d_bn", TORCH_FN(conv2d_bn));
  m.impl("conv3d_bn", TORCH_FN(conv3d_bn));
  m.impl("conv1d_bn_relu", TORCH_FN(conv1d_bn_relu));
  m.impl("conv2d_bn_relu", TORCH_FN(conv2d_bn_relu));
  m.impl("conv3d_bn_relu", TORCH_FN(conv3d_bn_relu));
  m.impl("conv_transpose1d_bn", TORCH_FN(conv_transpose1d_bn));
  m.impl("conv_transpose2d_bn", TORCH_FN(conv_transpose2d_bn));
  m.impl("conv_transpose3d_bn", TORCH_FN(conv_transpose3d_bn));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("conv1d_bn", TORCH_FN((InferenceOnly<"conv1d_bn", conv1d_bn>::call)));
  m.impl("conv2d_bn", TORCH_FN((InferenceOnly<"conv2d_bn", conv2d_bn>::call)));
  m.impl("conv3d_bn", TORCH_FN((InferenceOnly<"conv3d_bn", conv3d_bn>::call)));
  m.impl("conv1d_bn_relu", TORCH_FN((InferenceOnly<"conv1d_bn_relu", conv1d_bn_relu>::call)));
  m.impl("conv2d_bn_relu", TORCH_FN((InferenceOnly<"conv2d_bn_relu", conv2d_bn_relu>::call)));
  m.impl("conv3d_bn_relu", TORCH_FN((InferenceOnly<"conv3d_bn_relu", conv3d_bn_relu>::call)));
  m.impl("conv_transpose1d_bn", TORCH_FN((InferenceOnly<"conv_transpose1d_bn", conv_transpose1d_bn>::call)));
  m.impl("conv_transpose2d_bn", TORCH_FN((InferenceOnly<"conv_transpose2d_bn", conv_transpose2d_bn>::call)));
  m.impl("conv_transpose3d_bn", TORCH_FN((InferenceOnly<"conv_transpose3d_bn", conv_transpose3d_bn>::call)));
}

}  // namespace tae
