// y = quantize(post_ops(s_x * s_w[n] * sum_k (x[m][k] - zp_x) * (w[n][k] - zp_w[n]) + bias[n]))
//
// input [*, K] uint8 or int8, weight [N, K] int8, output [*, N]. The rule for every
// step and rounding is in engines/linear.h. The packed weight hangs on `weight`.
#include "core/autograd.h"
#include "core/qparams.h"
#include "ops/linear_common.h"

namespace tae {
namespace {

using at::Tensor;
using OptTensor = std::optional<at::Tensor>;
using OptDtype = std::optional<at::ScalarType>;

constexpr std::initializer_list<at::ScalarType> kOutputDtypes = {at::kByte, at::kChar, at::kFloat,
                                                                 at::kBFloat16};

Tensor run(const char* op, const StaticArgs& c, std::string_view post_ops, at::ArrayRef<double> args,
           const LinearOther& other, const PostOpTensors* tensors = nullptr) {
  LinearBaked baked = bake_arguments(op, c, post_ops, args);
  baked.post_op_tensors = tensors;
  return run_linear(baked, c.input, other);
}

const OptTensor kNone;

Tensor linear(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& weight,
              const Tensor& weight_scale, const OptTensor& weight_zero_point, const OptTensor& bias,
              double output_scale, int64_t output_zero_point, OptDtype output_dtype,
              std::string_view post_ops, at::ArrayRef<double> post_op_args, const OptTensor& other,
              double other_scale, int64_t other_zero_point, const OptTensor& slope,
              const OptTensor& affine_weight, const OptTensor& affine_bias) {
  const PostOpTensors tensors{slope, affine_weight, affine_bias};
  return run("linear",
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             post_ops, post_op_args, {other, other_scale, other_zero_point}, &tensors);
}

Tensor linear_tensor(const Tensor& input, const Tensor& input_scale, const Tensor& input_zero_point,
                     const Tensor& weight, const Tensor& weight_scale, const OptTensor& weight_zero_point,
                     const OptTensor& bias, const Tensor& output_scale, const Tensor& output_zero_point,
                     OptDtype output_dtype, std::string_view post_ops, at::ArrayRef<double> post_op_args,
                     const OptTensor& other, double other_scale, int64_t other_zero_point,
                     const OptTensor& slope, const OptTensor& affine_weight, const OptTensor& affine_bias) {
  const PostOpTensors tensors{slope, affine_weight, affine_bias};
  return run("linear",
             {input, scale_value({"linear", "input_scale"}, input_scale),
              zero_point_value({"linear", "input_zero_point"}, input_zero_point), weight, weight_scale,
              weight_zero_point, bias, scale_value({"linear", "output_scale"}, output_scale),
              zero_point_value({"linear", "output_zero_point"}, output_zero_point), output_dtype},
             post_ops, post_op_args, {other, other_scale, other_zero_point}, &tensors);
}

Tensor linear_relu(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& weight,
                   const Tensor& weight_scale, const OptTensor& weight_zero_point, const OptTensor& bias,
                   double output_scale, int64_t output_zero_point, OptDtype output_dtype) {
  return run("linear_relu",
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             "relu", {}, {kNone});
}

Tensor linear_leaky_relu(const Tensor& input, double input_scale, int64_t input_zero_point,
                         const Tensor& weight, const Tensor& weight_scale, const OptTensor& weight_zero_point,
                         const OptTensor& bias, double output_scale, int64_t output_zero_point,
                         OptDtype output_dtype, double negative_slope) {
  check_finite({"linear_leaky_relu", "negative_slope"}, nearest_float(negative_slope));
  return run("linear_leaky_relu",
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             "leaky_relu", negative_slope, {kNone});
}

Tensor linear_tanh(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& weight,
                   const Tensor& weight_scale, const OptTensor& weight_zero_point, const OptTensor& bias,
                   double output_scale, int64_t output_zero_point, OptDtype output_dtype) {
  return run("linear_tanh",
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             "tanh", {}, {kNone});
}

Tensor linear_add(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& weight,
                  const Tensor& weight_scale, const OptTensor& weight_zero_point, const OptTensor& bias,
                  double output_scale, int64_t output_zero_point, OptDtype output_dtype, const Tensor& other,
                  double other_scale, int64_t other_zero_point) {
  return run("linear_add",
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             "add", {}, {other, other_scale, other_zero_point});
}

Tensor linear_add_relu(const Tensor& input, double input_scale, int64_t input_zero_point,
                       const Tensor& weight, const Tensor& weight_scale, const OptTensor& weight_zero_point,
                       const OptTensor& bias, double output_scale, int64_t output_zero_point,
                       OptDtype output_dtype, const Tensor& other, double other_scale,
                       int64_t other_zero_point) {
  return run("linear_add_relu",
             {input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, bias,
              output_scale, output_zero_point, output_dtype},
             "add,relu", {}, {other, other_scale, other_zero_point});
}

// Packs as the first call of `linear` with the same arguments would.
void prepack_linear(const Tensor& weight, const Tensor& weight_scale, const OptTensor& weight_zero_point,
                    const OptTensor& bias, at::ScalarType input_dtype, double input_scale,
                    int64_t input_zero_point, double output_scale, int64_t output_zero_point,
                    OptDtype output_dtype, std::string_view post_ops, at::ArrayRef<double> post_op_args,
                    const OptTensor& slope, const OptTensor& affine_weight, const OptTensor& affine_bias) {
  const char* op = "_prepack_linear";
  check_dtype({op, "input_dtype"}, input_dtype, {at::kByte, at::kChar});
  check_dtype({op, "output_dtype"}, output_dtype.value_or(input_dtype), kOutputDtypes);
  LinearBaked baked{op, weight, weight_scale, weight_zero_point, bias};
  baked.input_dtype = dtype_of(input_dtype);
  baked.output_dtype = dtype_of(output_dtype.value_or(input_dtype));
  baked.post_ops = post_ops;
  baked.post_op_args = post_op_args;
  const PostOpTensors tensors{slope, affine_weight, affine_bias};
  baked.post_op_tensors = &tensors;
  bake_static_qparams(&baked, input_scale, input_zero_point, output_scale, output_zero_point);
  check_linear_weights(baked);
  if (weight.size(0) > 0) packed_linear(baked);
}

// Under a fake or meta tensor there is nothing to pack.
void prepack_linear_meta(const Tensor&, const Tensor&, const OptTensor&, const OptTensor&, at::ScalarType,
                         double, int64_t, double, int64_t, OptDtype, std::string_view, at::ArrayRef<double>,
                         const OptTensor&, const OptTensor&, const OptTensor&) {}

}  // namespace

// All keys that are not Meta come here, so that a wrong device or layout meets the
// checks above instead of the dispatcher's text.
TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "linear(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None, str post_ops='', "
      "float[] post_op_args=[], Tensor? other=None, float other_scale=1., "
      "int other_zero_point=0, Tensor? slope=None, "
      "Tensor? affine_weight=None, Tensor? affine_bias=None) -> Tensor");
  m.def(
      "linear.tensor(Tensor input, Tensor input_scale, Tensor input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, Tensor output_scale, "
      "Tensor output_zero_point, ScalarType? output_dtype=None, str post_ops='', "
      "float[] post_op_args=[], Tensor? other=None, float other_scale=1., "
      "int other_zero_point=0, Tensor? slope=None, "
      "Tensor? affine_weight=None, Tensor? affine_bias=None) -> Tensor");
  m.def(
      "linear_relu(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None) -> Tensor");
  m.def(
      "linear_leaky_relu(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None, float negative_slope=0.01) "
      "-> Tensor");
  m.def(
      "linear_tanh(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype=None) -> Tensor");
  m.def(
      "linear_add(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype, Tensor other, float other_scale=1., "
      "int other_zero_point=0) -> Tensor");
  m.def(
      "linear_add_relu(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor weight_scale, Tensor? weight_zero_point, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype, Tensor other, float other_scale=1., "
      "int other_zero_point=0) -> Tensor");
  m.def(
      "_prepack_linear(Tensor weight, Tensor weight_scale, Tensor? weight_zero_point, "
      "Tensor? bias, ScalarType input_dtype, float input_scale, int input_zero_point, "
      "float output_scale, int output_zero_point, ScalarType? output_dtype=None, "
      "str post_ops='', float[] post_op_args=[], Tensor? slope=None, "
      "Tensor? affine_weight=None, Tensor? affine_bias=None) -> ()");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("linear", TORCH_FN(linear));
  m.impl("linear.tensor", TORCH_FN(linear_tensor));
  m.impl("linear_relu", TORCH_FN(linear_relu));
  m.impl("linear_leaky_relu", TORCH_FN(linear_leaky_relu));
  m.impl("linear_tanh", TORCH_FN(linear_tanh));
  m.impl("linear_add", TORCH_FN(linear_add));
  m.impl("linear_add_relu", TORCH_FN(linear_add_relu));
  m.impl("_prepack_linear", TORCH_FN(prepack_linear));
}

TORCH_LIBRARY_IMPL(torch_ao, Meta, m) { m.impl("_prepack_linear", TORCH_FN(prepack_linear_meta)); }

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("linear", TORCH_FN((InferenceOnly<"linear", linear>::call)));
  m.impl("linear.tensor", TORCH_FN((InferenceOnly<"linear.tensor", linear_tensor>::call)));
  m.impl("linear_relu", TORCH_FN((InferenceOnly<"linear_relu", linear_relu>::call)));
  m.impl("linear_leaky_relu", TORCH_FN((InferenceOnly<"linear_leaky_relu", linear_leaky_relu>::call)));
  m.impl("linear_tanh", TORCH_FN((InferenceOnly<"linear_tanh", linear_tanh>::call)));
  m.impl("linear_add", TORCH_FN((InferenceOnly<"linear_add", linear_add>::call)));
  m.impl("linear_add_relu", TORCH_FN((InferenceOnly<"linear_add_relu", linear_add_relu>::call)));
  m.impl("_prepack_linear", TORCH_FN((InferenceOnly<"_prepack_linear", prepack_linear>::call)));
}

}  // namespace tae
