// The fused names of convolutions that torch published: ops/conv.cpp with fixed post-ops.
//   conv1d_relu, conv2d_relu, conv3d_relu   relu
//   conv2d_add, conv2d_add_relu             residual add of `other`, then relu
#include "core/autograd.h"
#include "ops/conv_common.h"

namespace tae {
namespace {

using at::IntArrayRef;
using at::Tensor;
using OptTensor = std::optional<at::Tensor>;
using OptDtype = std::optional<at::ScalarType>;

const OptTensor kNone;

template <OpName Name, int Rank>
Tensor conv_relu(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& weight,
                 const Tensor& weight_scale, const OptTensor& weight_zero_point, const OptTensor& bias,
                 double output_scale, int64_t output_zero_point, OptDtype output_dtype, IntArrayRef stride,
                 IntArrayRef padding, IntArrayRef dilation, int64_t groups) {
  const StaticArgs c{input, input_scale,  input_zero_point,  weight,      weight_scale, weight_zero_point,
                     bias,  output_scale, output_zero_point, output_dtype};
  return run_conv(bake_arguments(Name.c_str(), c, "relu"),
                  {Rank, false, stride, padding, {}, dilation, groups}, input, {kNone});
}

template <OpName Name, bool Relu>
Tensor conv_add(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& weight,
                const Tensor& weight_scale, const OptTensor& weight_zero_point, const OptTensor& bias,
                double output_scale, int64_t output_zero_point, OptDtype output_dtype, const Tensor& other,
                double other_scale, int64_t other_zero_point, IntArrayRef stride, IntArrayRef padding,
                IntArrayRef dilation, int64_t groups) {
  const StaticArgs c{input, input_scale,  input_zero_point,  weight,      weight_scale, weight_zero_point,
                     bias,  output_scale, output_zero_point, output_dtype};
  return run_conv(bake_arguments(Name.c_str(), c, Relu ? "add,relu" : "add"),
                  {2, false, stride, padding, {}, dilation, groups}, input,
                  {other, other_scale, other_zero_point});
}

constexpr auto conv1d_relu = conv_relu<"conv1d_relu", 1>;
constexpr auto conv2d_relu = conv_relu<"conv2d_relu", 2>;
constexpr auto conv3d_relu = conv_relu<"conv3d_relu", 3>;
constexpr auto conv2d_add = conv_add<"conv2d_add", false>;
constexpr auto conv2d_add_relu = conv_add<"conv2d_add_relu", true>;

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "conv1d_relu(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None, "
      "int[1] stride=1, int[1] padding=0, int[1] dilation=1, int groups=1) -> Tensor");
  m.def(
      "conv2d_relu(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None, "
      "int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1) -> Tensor");
  m.def(
      "conv3d_relu(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None, "
      "int[3] stride=1, int[3] padding=0, int[3] dilation=1, int groups=1) -> Tensor");
  m.def(
      "conv2d_add(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype, Tensor other, float other_scale=1., "
      "int other_zero_point=0, int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1) "
      "-> Tensor");
  m.def(
      "conv2d_add_relu(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype, Tensor other, float other_scale=1., "
      "int other_zero_point=0, int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1) "
      "-> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("conv1d_relu", TORCH_FN(conv1d_relu));
  m.impl("conv2d_relu", TORCH_FN(conv2d_relu));
  m.impl("conv3d_relu", TORCH_FN(conv3d_relu));
  m.impl("conv2d_add", TORCH_FN(conv2d_add));
  m.impl("conv2d_add_relu", TORCH_FN(conv2d_add_relu));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("conv1d_relu", TORCH_FN((InferenceOnly<"conv1d_relu", conv1d_relu>::call)));
  m.impl("conv2d_relu", TORCH_FN((InferenceOnly<"conv2d_relu", conv2d_relu>::call)));
  m.impl("conv3d_relu", TORCH_FN((InferenceOnly<"conv3d_relu", conv3d_relu>::call)));
  m.impl("conv2d_add", TORCH_FN((InferenceOnly<"conv2d_add", conv2d_add>::call)));
  m.impl("conv2d_add_relu", TORCH_FN((InferenceOnly<"conv2d_add_relu", conv2d_add_relu>::call)));
}

}  // namespace tae
