// y = quantize(post_ops(s_x * s_w[n] * sum (x - zp_x) * (w[n] - zp_w[n]) + bias[n])), the sum
// over the taps and channels of torch.nn.functional.conv{1,2,3}d or conv_transpose{1,2,3}d;
// x outside the input is zp_x.
//
// input [N, C, *S] uint8 or int8 in any layout (channels last is not copied), output
// [N, n, *S'] channels last. Every rounding is in engines/linear.h. The packed weight
// hangs on `weight`.
#include "core/autograd.h"
#include "ops/conv_common.h"

namespace tae {
namespace {

using at::IntArrayRef;
using at::Tensor;
using OptTensor = std::optional<at::Tensor>;
using OptDtype = std::optional<at::ScalarType>;

Tensor run(const char* op, const StaticArgs& c, const ConvNumbers& numbers, std::string_view post_ops,
           at::ArrayRef<double> args, const LinearOther& other, const PostOpTensors& tensors) {
  LinearBaked baked = bake_arguments(op, c, post_ops, args);
  baked.post_op_tensors = &tensors;
  return run_conv(baked, numbers, c.input, other);
}

Tensor conv1d(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& weight,
              const Tensor& weight_scale, const OptTensor& weight_zero_point, const OptTensor& bias,
              double output_scale, int64_t output_zero_point, OptDtype output_dtype, IntArrayRef stride,
              IntArrayRef padding, IntArrayRef dilation, int64_t groups, std::string_view post_ops,
              at::ArrayRef<double> post_op_args, const OptTensor& other, double other_scale,
              int64_t other_zero_point, const OptTensor& slope, const OptTensor& affine_weight,
              const OptTensor& affine_bias) {
  return run("conv1d",
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             {1, false, stride, padding, {}, dilation, groups}, post_ops, post_op_args,
             {other, other_scale, other_zero_point}, {slope, affine_weight, affine_bias});
}

Tensor conv2d(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& weight,
              const Tensor& weight_scale, const OptTensor& weight_zero_point, const OptTensor& bias,
              double output_scale, int64_t output_zero_point, OptDtype output_dtype, IntArrayRef stride,
              IntArrayRef padding, IntArrayRef dilation, int64_t groups, std::string_view post_ops,
              at::ArrayRef<double> post_op_args, const OptTensor& other, double other_scale,
              int64_t other_zero_point, const OptTensor& slope, const OptTensor& affine_weight,
              const OptTensor& affine_bias) {
  return run("conv2d",
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             {2, false, stride, padding, {}, dilation, groups}, post_ops, post_op_args,
             {other, other_scale, other_zero_point}, {slope, affine_weight, affine_bias});
}

Tensor conv3d(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& weight,
              const Tensor& weight_scale, const OptTensor& weight_zero_point, const OptTensor& bias,
              double output_scale, int64_t output_zero_point, OptDtype output_dtype, IntArrayRef stride,
              IntArrayRef padding, IntArrayRef dilation, int64_t groups, std::string_view post_ops,
              at::ArrayRef<double> post_op_args, const OptTensor& other, double other_scale,
              int64_t other_zero_point, const OptTensor& slope, const OptTensor& affine_weight,
              const OptTensor& affine_bias) {
  return run("conv3d",
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             {3, false, stride, padding, {}, dilation, groups}, post_ops, post_op_args,
             {other, other_scale, other_zero_point}, {slope, affine_weight, affine_bias});
}

Tensor conv_transpose1d(const Tensor& input, double input_scale, int64_t input_zero_point,
                        const Tensor& weight, const Tensor& weight_scale, const OptTensor& weight_zero_point,
                        const OptTensor& bias, double output_scale, int64_t output_zero_point,
                        OptDtype output_dtype, IntArrayRef stride, IntArrayRef padding,
                        IntArrayRef output_padding, int64_t groups, IntArrayRef dilation,
                        std::string_view post_ops, at::ArrayRef<double> post_op_args, const OptTensor& other,
                        double other_scale, int64_t other_zero_point, const OptTensor& slope,
                        const OptTensor& affine_weight, const OptTensor& affine_bias) {
  return run("conv_transpose1d",
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             {1, true, stride, padding, output_padding, dilation, groups}, post_ops, post_op_args,
             {other, other_scale, other_zero_point}, {slope, affine_weight, affine_bias});
}

Tensor conv_transpose2d(const Tensor& input, double input_scale, int64_t input_zero_point,
                        const Tensor& weight, const Tensor& weight_scale, const OptTensor& weight_zero_point,
                        const OptTensor& bias, double output_scale, int64_t output_zero_point,
                        OptDtype output_dtype, IntArrayRef stride, IntArrayRef padding,
                        IntArrayRef output_padding, int64_t groups, IntArrayRef dilation,
                        std::string_view post_ops, at::ArrayRef<double> post_op_args, const OptTensor& other,
                        double other_scale, int64_t other_zero_point, const OptTensor& slope,
                        const OptTensor& affine_weight, const OptTensor& affine_bias) {
  return run("conv_transpose2d",
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             {2, true, stride, padding, output_padding, dilation, groups}, post_ops, post_op_args,
             {other, other_scale, other_zero_point}, {slope, affine_weight, affine_bias});
}

Tensor conv_transpose3d(const Tensor& input, double input_scale, int64_t input_zero_point,
                        const Tensor& weight, const Tensor& weight_scale, const OptTensor& weight_zero_point,
                        const OptTensor& bias, double output_scale, int64_t output_zero_point,
                        OptDtype output_dtype, IntArrayRef stride, IntArrayRef padding,
                        IntArrayRef output_padding, int64_t groups, IntArrayRef dilation,
                        std::string_view post_ops, at::ArrayRef<double> post_op_args, const OptTensor& other,
                        double other_scale, int64_t other_zero_point, const OptTensor& slope,
                        const OptTensor& affine_weight, const OptTensor& affine_bias) {
  return run("conv_transpose3d",
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             {3, true, stride, padding, output_padding, dilation, groups}, post_ops, post_op_args,
             {other, other_scale, other_zero_point}, {slope, affine_weight, affine_bias});
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "conv1d(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None, "
      "int[1] stride=1, int[1] padding=0, int[1] dilation=1, int groups=1, "
      "str post_ops='', float[] post_op_args=[], Tensor? other=None, float other_scale=1., "
      "int other_zero_point=0, Tensor? slope=None, "
      "Tensor? affine_weight=None, Tensor? affine_bias=None) -> Tensor");
  m.def(
      "conv2d(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None, "
      "int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1, "
      "str post_ops='', float[] post_op_args=[], Tensor? other=None, float other_scale=1., "
      "int other_zero_point=0, Tensor? slope=None, "
      "Tensor? affine_weight=None, Tensor? affine_bias=None) -> Tensor");
  m.def(
      "conv3d(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None, "
      "int[3] stride=1, int[3] padding=0, int[3] dilation=1, int groups=1, "
      "str post_ops='', float[] post_op_args=[], Tensor? other=None, float other_scale=1., "
      "int other_zero_point=0, Tensor? slope=None, "
      "Tensor? affine_weight=None, Tensor? affine_bias=None) -> Tensor");
  m.def(
      "conv_transpose1d(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None, "
      "int[1] stride=1, int[1] padding=0, int[1] output_padding=0, int groups=1, int[1] dilation=1, "
      "str post_ops='', float[] post_op_args=[], Tensor? other=None, float other_scale=1., "
      "int other_zero_point=0, Tensor? slope=None, "
      "Tensor? affine_weight=None, Tensor? affine_bias=None) -> Tensor");
  m.def(
      "conv_transpose2d(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None, "
      "int[2] stride=1, int[2] padding=0, int[2] output_padding=0, int groups=1, int[2] dilation=1, "
      "str post_ops='', float[] post_op_args=[], Tensor? other=None, float other_scale=1., "
      "int other_zero_point=0, Tensor? slope=None, "
      "Tensor? affine_weight=None, Tensor? affine_bias=None) -> Tensor");
  m.def(
      "conv_transpose3d(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None, "
      "int[3] stride=1, int[3] padding=0, int[3] output_padding=0, int groups=1, int[3] dilation=1, "
      "str post_ops='', float[] post_op_args=[], Tensor? other=None, float other_scale=1., "
      "int other_zero_point=0, Tensor? slope=None, "
      "Tensor? affine_weight=None, Tensor? affine_bias=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("conv1d", TORCH_FN(conv1d));
  m.impl("conv2d", TORCH_FN(conv2d));
  m.impl("conv3d", TORCH_FN(conv3d));
  m.impl("conv_transpose1d", TORCH_FN(conv_transpose1d));
  m.impl("conv_transpose2d", TORCH_FN(conv_transpose2d));
  m.impl("conv_transpose3d", TORCH_FN(conv_transpose3d));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("conv1d", TORCH_FN((InferenceOnly<"conv1d", conv1d>::call)));
  m.impl("conv2d", TORCH_FN((InferenceOnly<"conv2d", conv2d>::call)));
  m.impl("conv3d", TORCH_FN((InferenceOnly<"conv3d", conv3d>::call)));
  m.impl("conv_transpose1d", TORCH_FN((InferenceOnly<"conv_transpose1d", conv_transpose1d>::call)));
  m.impl("conv_transpose2d", TORCH_FN((InferenceOnly<"conv_transpose2d", conv_transpose2d>::call)));
  m.impl("conv_transpose3d", TORCH_FN((InferenceOnly<"conv_transpose3d", conv_transpose3d>::call)));
}

}  // namespace tae
