// y = post_ops(s_x[m] * s_w[n] * sum_k (q(x)[m][k] - zp_x[m]) * (w[n][k] - zp_w[n]) + bias[n])
//
// input [*, K] float32 or bfloat16, quantized inside the op: a scale and zero point a
// row (default) or one for the whole tensor. weight [N, K] int8, output [*, N]. The
// quantization rules and every rounding are in engines/linear.h.
#include "core/autograd.h"
#include "ops/linear_common.h"

namespace tae {
namespace {

using at::Tensor;
using OptTensor = std::optional<at::Tensor>;
using OptDtype = std::optional<at::ScalarType>;

const OptTensor kNone;

LinearBaked bake(const char* op, at::ScalarType input_dtype, const Tensor& weight, const Tensor& weight_scale,
                 const OptTensor& weight_zero_point, const OptTensor& bias, const DynamicQuant& quant,
                 const OptDtype& output_dtype) {
  check_dtype({op, "output_dtype"}, output_dtype.value_or(input_dtype), {at::kFloat, at::kBFloat16});
  LinearBaked baked{op, weight, weight_scale, weight_zero_point, bias};
  baked.dynamic = true;
  baked.dynamic_quant = quant;
  baked.input_dtype = dtype_of(input_dtype);
  baked.output_dtype = dtype_of(output_dtype.value_or(input_dtype));
  return baked;
}

Tensor linear_dynamic(const Tensor& input, const Tensor& weight, const Tensor& weight_scale,
                      const OptTensor& weight_zero_point, const OptTensor& bias, bool per_row, bool symmetric,
                      bool reduce_range, OptDtype output_dtype, std::string_view post_ops,
                      at::ArrayRef<double> post_op_args, const OptTensor& other, const OptTensor& slope,
                      const OptTensor& affine_weight, const OptTensor& affine_bias) {
  const char* op = "linear_dynamic";
  check_tensor({op, "input"}, input, {at::kFloat, at::kBFloat16});
  LinearBaked baked = bake(op, input.scalar_type(), weight, weight_scale, weight_zero_point, bias,
                           {per_row, symmetric, reduce_range}, output_dtype);
  baked.post_ops = post_ops;
  baked.post_op_args = post_op_args;
  const PostOpTensors tensors{slope, affine_weight, affine_bias};
  baked.post_op_tensors = &tensors;
  return run_linear(baked, input, {other});
}

Tensor linear_relu_dynamic(const Tensor& input, const Tensor& weight, const Tensor& weight_scale,
                           const OptTensor& weight_zero_point, const OptTensor& bias, bool per_row,
                           bool symmetric, bool reduce_range, OptDtype output_dtype) {
  const char* op = "linear_relu_dynamic";
  check_tensor({op, "input"}, input, {at::kFloat, at::kBFloat16});
  LinearBaked baked = bake(op, input.scalar_type(), weight, weight_scale, weight_zero_point, bias,
                           {per_row, symmetric, reduce_range}, output_dtype);
  baked.post_ops = "relu";
  return run_linear(baked, input, {kNone});
}

// Packs as the first call of `linear_dynamic` with the same arguments would.
void prepack_linear_dynamic(const Tensor& weight, const Tensor& weight_scale,
                            const OptTensor& weight_zero_point, const OptTensor& bias, OptDtype input_dtype,
                            bool per_row, bool symmetric, bool reduce_range, OptDtype output_dtype,
                            std::string_view post_ops, at::ArrayRef<double> post_op_args,
                            const OptTensor& slope, const OptTensor& affine_weight,
                            const OptTensor& affine_bias) {
  const char* op = "_prepack_linear_dynamic";
  const at::ScalarType dtype = input_dtype.value_or(at::kFloat);
  check_dtype({op, "input_dtype"}, dtype, {at::kFloat, at::kBFloat16});
  LinearBaked baked = bake(op, dtype, weight, weight_scale, weight_zero_point, bias,
                           {per_row, symmetric, reduce_range}, output_dtype);
  baked.post_ops = post_ops;
  baked.post_op_args = post_op_args;
  const PostOpTensors tensors{slope, affine_weight, affine_bias};
  baked.post_op_tensors = &tensors;
  check_linear_weights(baked);
  if (weight.size(0) > 0) packed_linear(baked);
}

// Under a fake or meta tensor there is nothing to pack.
void prepack_linear_dynamic_meta(const Tensor&, const Tensor&, const OptTensor&, const OptTensor&, OptDtype,
                                 bool, bool, bool, OptDtype, std::string_view, at::ArrayRef<double>,
                                 const OptTensor&, const OptTensor&, const OptTensor&) {}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "linear_dynamic(Tensor input, Tensor weight, Tensor weight_scale, "
      "Tensor? weight_zero_point=None, Tensor? bias=None, bool per_row=True, "
      "bool symmetric=False, bool reduce_range=False, ScalarType? output_dtype=None, "
      "str post_ops='', float[] post_op_args=[], Tensor? other=None, Tensor? slope=None, "
      "Tensor? affine_weight=None, Tensor? affine_bias=None) -> Tensor");
  m.def(
      "linear_relu_dynamic(Tensor input, Tensor weight, Tensor weight_scale, "
      "Tensor? weight_zero_point=None, Tensor? bias=None, bool per_row=True, "
      "bool symmetric=False, bool reduce_range=False, ScalarType? output_dtype=None) -> Tensor");
  m.def(
      "_prepack_linear_dynamic(Tensor weight, Tensor weight_scale, "
      "Tensor? weight_zero_point=None, Tensor? bias=None, ScalarType? input_dtype=None, "
      "bool per_row=True, bool symmetric=False, bool reduce_range=False, "
      "ScalarType? output_dtype=None, str post_ops='', float[] post_op_args=[], Tensor? slope=None, "
      "Tensor? affine_weight=None, Tensor? affine_bias=None) -> ()");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("linear_dynamic", TORCH_FN(linear_dynamic));
  m.impl("linear_relu_dynamic", TORCH_FN(linear_relu_dynamic));
  m.impl("_prepack_linear_dynamic", TORCH_FN(prepack_linear_dynamic));
}

TORCH_LIBRARY_IMPL(torch_ao, Meta, m) {
  m.impl("_prepack_linear_dynamic", TORCH_FN(prepack_linear_dynamic_meta));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("linear_dynamic", TORCH_FN((InferenceOnly<"linear_dynamic", linear_dynamic>::call)));
  m.impl("linear_relu_dynamic", TORCH_FN((InferenceOnly<"linear_relu_dynamic", linear_relu_dynamic>::call)));
  m.impl("_prepack_linear_dynamic",
         TORCH_FN((InferenceOnly<"_prepack_linear_dynamic", prepack_linear_dynamic>::call)));
}

}  // namespace tae
