// y = post_ops(s_x * s_w[n] * sum (q(x) - zp_x) * (w[n] - zp_w[n]) + bias[n]), the sum that of
// ops/conv.cpp
//
// input [N, C, *S] float32 or bfloat16, quantized inside the op: a scale and zero point for
// each of the N samples (default) or one for the whole tensor. Padding is the real value 0.
// weight int8, output [N, n, *S'] float32 or bfloat16, channels last. The quantization rules
// (a sample is a row) and every rounding are in engines/linear.h.
#include "core/autograd.h"
#include "ops/conv_common.h"

namespace tae {
namespace {

using at::IntArrayRef;
using at::Tensor;
using OptTensor = std::optional<at::Tensor>;
using OptDtype = std::optional<at::ScalarType>;

// The arguments that both forms have, in schema order.
struct Common {
  const Tensor& input;
  const Tensor& weight;
  const Tensor& weight_scale;
  const OptTensor& weight_zero_point;
  const OptTensor& bias;
  DynamicQuant quant;
  const OptDtype& output_dtype;
};

Tensor run(const char* op, const Common& c, const ConvNumbers& numbers, std::string_view post_ops,
           at::ArrayRef<double> args, const OptTensor& other, const PostOpTensors& tensors) {
  check_tensor({op, "input"}, c.input, {at::kFloat, at::kBFloat16});
  const at::ScalarType output_dtype = c.output_dtype.value_or(c.input.scalar_type());
  check_dtype({op, "output_dtype"}, output_dtype, {at::kFloat, at::kBFloat16});
  LinearBaked baked{op, c.weight, c.weight_scale, c.weight_zero_point, c.bias};
  baked.dynamic = true;
  baked.dynamic_quant = c.quant;
  baked.input_dtype = dtype_of(c.input.scalar_type());
  baked.output_dtype = dtype_of(output_dtype);
  baked.post_ops = post_ops;
  baked.post_op_args = args;
  baked.post_op_tensors = &tensors;
  return run_conv(baked, numbers, c.input, {other});
}

template <OpName Name, int Rank>
Tensor conv(const Tensor& input, const Tensor& weight, const Tensor& weight_scale,
            const OptTensor& weight_zero_point, const OptTensor& bias, bool per_sample, bool symmetric,
            bool reduce_range, OptDtype output_dtype, IntArrayRef stride, IntArrayRef padding,
            IntArrayRef dilation, int64_t groups, std::string_view post_ops,
            at::ArrayRef<double> post_op_args, const OptTensor& other, const OptTensor& slope,
            const OptTensor& affine_weight, const OptTensor& affine_bias) {
  return run(Name.c_str(),
             {input,
              weight,
              weight_scale,
              weight_zero_point,
              bias,
              {per_sample, symmetric, reduce_range},
              output_dtype},
             {Rank, false, stride, padding, {}, dilation, groups}, post_ops, post_op_args, other,
             {slope, affine_weight, affine_bias});
}

template <OpName Name, int Rank>
Tensor conv_transpose(const Tensor& input, const Tensor& weight, const Tensor& weight_scale,
                      const OptTensor& weight_zero_point, const OptTensor& bias, bool per_sample,
                      bool symmetric, bool reduce_range, OptDtype output_dtype, IntArrayRef stride,
                      IntArrayRef padding, IntArrayRef output_padding, int64_t groups, IntArrayRef dilation,
                      std::string_view post_ops, at::ArrayRef<double> post_op_args, const OptTensor& other,
                      const OptTensor& slope, const OptTensor& affine_weight, const OptTensor& affine_bias) {
  return run(Name.c_str(),
             {input,
              weight,
              weight_scale,
              weight_zero_point,
              bias,
              {per_sample, symmetric, reduce_range},
              output_dtype},
             {Rank, true, stride, padding, output_padding, dilation, groups}, post_ops, post_op_args, other,
             {slope, affine_weight, affine_bias});
}

// The schema of one name; `n` is the number of spatial dimensions.
std::string schema(const std::string& name, bool transposed, int rank) {
  const std::string n = "int[" + std::to_string(rank) + "] ";
  return name +
         "(Tensor input, Tensor weight, Tensor weight_scale, Tensor? weight_zero_point=None, "
         "Tensor? bias=None, bool per_sample=True, bool symmetric=False, bool reduce_range=False, "
         "ScalarType? output_dtype=None, " +
         n + "stride=1, " + n + "padding=0, " +
         (transposed ? n + "output_padding=0, int groups=1, " + n + "dilation=1, "
                     : n + "dilation=1, int groups=1, ") +
         "str post_ops='', float[] post_op_args=[], Tensor? other=None, Tensor? slope=None, "
         "Tensor? affine_weight=None, Tensor? affine_bias=None) -> Tensor";
}

constexpr auto conv1d = conv<"conv1d_dynamic", 1>;
constexpr auto conv2d = conv<"conv2d_dynamic", 2>;
constexpr auto conv3d = conv<"conv3d_dynamic", 3>;
constexpr auto conv_transpose1d = conv_transpose<"conv_transpose1d_dynamic", 1>;
constexpr auto conv_transpose2d = conv_transpose<"conv_transpose2d_dynamic", 2>;
constexpr auto conv_transpose3d = conv_transpose<"conv_transpose3d_dynamic", 3>;

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(schema("conv1d_dynamic", false, 1).c_str());
  m.def(schema("conv2d_dynamic", false, 2).c_str());
  m.def(schema("conv3d_dynamic", false, 3).c_str());
  m.def(schema("conv_transpose1d_dynamic", true, 1).c_str());
  m.def(schema("conv_transpose2d_dynamic", true, 2).c_str());
  m.def(schema("conv_transpose3d_dynamic", true, 3).c_str());
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("conv1d_dynamic", TORCH_FN(conv1d));
  m.impl("conv2d_dynamic", TORCH_FN(conv2d));
  m.impl("conv3d_dynamic", TORCH_FN(conv3d));
  m.impl("conv_transpose1d_dynamic", TORCH_FN(conv_transpose1d));
  m.impl("conv_transpose2d_dynamic", TORCH_FN(conv_transpose2d));
  m.impl("conv_transpose3d_dynamic", TORCH_FN(conv_transpose3d));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("conv1d_dynamic", TORCH_FN((InferenceOnly<"conv1d_dynamic", conv1d>::call)));
  m.impl("conv2d_dynamic", TORCH_FN((InferenceOnly<"conv2d_dynamic", conv2d>::call)));
  m.impl("conv3d_dynamic", TORCH_FN((InferenceOnly<"conv3d_dynamic", conv3d>::call)));
  m.impl("conv_transpose1d_dynamic",
         TORCH_FN((InferenceOnly<"conv_transpose1d_dynamic", conv_transpose1d>::call)));
  m.impl("conv_transpose2d_dynamic",
         TORCH_FN((InferenceOnly<"conv_transpose2d_dynamic", conv_transpose2d>::call)));
  m.impl("conv_transpose3d_dynamic",
         TORCH_FN((InferenceOnly<"conv_transpose3d_dynamic", conv_transpose3d>::call)));
}

}  // namespace tae
