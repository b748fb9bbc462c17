// layer_norm:     y = quantize(post_ops((x - mean) / sqrt(var + eps) * weight + bias))
// rms_norm:       y = quantize(post_ops(x / sqrt(mean(x^2) + eps) * weight))
// add_layer_norm: layer_norm of x = a + b, also as an op that returns x
//
// mean and var (the biased one) over the last dimensions, those of normalized_shape. x is
// dequantize(q) of an 8-bit input, or a float one; then y is 8 bits: quantize and layer_norm
// in one. Rounding: kernels/norm.h; an 8-bit result is within one step of that of the
// formula in f64. A float row whose sum of squares is no finite float32 gives NaN, the
// lowest integer. The output is contiguous.
//
// Layer normalization: Ba, Kiros, Hinton, arXiv:1607.06450, equations 3 and 4. RMSNorm:
// Zhang, Sennrich, arXiv:1910.07467, equation 4.
#include "core/autograd_sizes.h"
#include "ops/norm_common.h"

namespace tae {
namespace {

using at::IntArrayRef;
using at::Tensor;
using kernels::RealRows;
using OptDtype = std::optional<at::ScalarType>;
using OptTensor = std::optional<at::Tensor>;

// Values of a row.
int64_t check_normalized(const char* op, const Tensor& input, IntArrayRef shape) {
  const Arg arg{op, "normalized_shape"};
  TAE_CHECK_VALUE(!shape.empty(), arg, "have at least 1 value", shape);
  const int64_t rank = static_cast<int64_t>(shape.size());
  check_min_rank({op, "input"}, input, rank);
  TAE_CHECK_VALUE(input.sizes().slice(input.dim() - rank) == shape, arg,
                  c10::str("be the last sizes of input ", input.sizes()), shape);
  uint64_t count = 1;  // may wrap beside a size of 0
  for (int64_t n : shape) count *= static_cast<uint64_t>(n);
  return static_cast<int64_t>(count);
}

// What comes in the same form with each of the ops.
struct Call {
  const char* op;
  IntArrayRef shape;
  const OptTensor& weight;
  const OptTensor& bias;
  double eps;
  bool centred;
};

// The rows of one operand.
RowView operand_rows(const Arg& arg, const Tensor& t, IntArrayRef shape, int64_t count, RealRows* rows) {
  RowView view = norm_rows(arg, t, shape.size(), count);
  rows->data = view.data;
  rows->stride = view.stride;
  return view;
}

RealRows from_row(const RealRows& rows, int64_t row) {
  RealRows part = rows;
  part.data =
      static_cast<const uint8_t*>(rows.data) + row * rows.stride * static_cast<int64_t>(size_of(rows.dtype));
  return part;
}

uint8_t* bytes_at(const Tensor& t, int64_t row, int64_t count) {
  return static_cast<uint8_t*>(t.mutable_data_ptr()) + row * count * size_of_element(t);
}

// `real` receives x where it is defined.
Tensor normalize(const Call& call, const Tensor& input, RealRows x, const Tensor* other, RealRows y,
                 const OutputFinish& out, const Tensor& real) {
  const Arg arg{call.op, "input"}, other_arg{call.op, "other"};
  kernels::RowNorm norm;
  norm.count = check_normalized(call.op, input, call.shape);
  norm.centred = call.centred;
  norm.eps = check_eps(call.op, call.eps);
  const Parameter weight = check_parameter({call.op, "weight"}, call.weight, call.shape, "normalized_shape");
  const Parameter bias = check_parameter({call.op, "bias"}, call.bias, call.shape, "normalized_shape");
  norm.weight = weight.data;
  norm.bias = bias.data;
  const int64_t numel = check_numel(arg, input.sizes(), c10::elementSize(out.dtype));
  const Tensor output = empty_output(arg, input.sizes(), out.dtype);
  if (numel == 0) return output;
  const RowView from = operand_rows(arg, input, call.shape, norm.count, &x);
  RowView second;
  if (other != nullptr) second = operand_rows(other_arg, *other, call.shape, norm.count, &y);
  const kernels::NormKernels& k = kernels::norm_kernels(best_isa());
  const bool plain = other == nullptr && is_quantized(x.dtype);
  const int64_t grain = std::max<int64_t>(1, kElementGrain / norm.count);
  parallel_for(numel / norm.count, grain, [&](int64_t begin, int64_t end) {
    kernels::NormOutput to{out.finish, bytes_at(output, begin, norm.count)};
    to.finish.streams = streams(output);
    if (plain) {
      std::vector<float> scratch;
      if (end - begin > 1) scratch = make_vector<float>(arg, kernels::lane_floats(norm.count));
      k.byte_rows(norm, from_row(x, begin), end - begin, scratch.empty() ? nullptr : scratch.data(), to);
      return;
    }
    if (real.defined()) {
      to.real = bytes_at(real, begin, norm.count);
      to.real_dtype = dtype_of(real.scalar_type());
    }
    std::vector<float> scratch;
    if (other != nullptr || x.dtype != DType::f32) scratch = make_vector<float>(arg, norm.count);
    const RealRows added = other != nullptr ? from_row(y, begin) : RealRows();
    k.real_rows(norm, from_row(x, begin), other != nullptr ? &added : nullptr, end - begin, scratch.data(),
                to);
  });
  return output;
}

RealRows check_input(const char* op, const Tensor& input, double scale, int64_t zero_point) {
  return check_real({op, "input"}, {op, "input_scale"}, {op, "input_zero_point"}, input, scale, zero_point);
}

Tensor layer_norm(const Tensor& input, double input_scale, int64_t input_zero_point, const OptTensor& weight,
                  const OptTensor& bias, double output_scale, int64_t output_zero_point,
                  OptDtype output_dtype, IntArrayRef normalized_shape, double eps, std::string_view post_ops,
                  at::ArrayRef<double> post_op_args) {
  const char* op = "layer_norm";
  const RealRows x = check_input(op, input, input_scale, input_zero_point);
  OutputFinish out;
  check_output(op, input.scalar_type(), output_scale, output_zero_point, output_dtype, post_ops, post_op_args,
               &out);
  return normalize({op, normalized_shape, weight, bias, eps, true}, input, x, nullptr, {}, out, {});
}

Tensor rms_norm(const Tensor& input, double input_scale, int64_t input_zero_point, const OptTensor& weight,
                double output_scale, int64_t output_zero_point, OptDtype output_dtype,
                IntArrayRef normalized_shape, std::optional<double> eps, std::string_view post_ops,
                at::ArrayRef<double> post_op_args) {
  const char* op = "rms_norm";
  const RealRows x = check_input(op, input, input_scale, input_zero_point);
  OutputFinish out;
  check_output(op, input.scalar_type(), output_scale, output_zero_point, output_dtype, post_ops, post_op_args,
               &out);
  // None: the step of float32 at 1, as torch.nn.functional.rms_norm.
  const OptTensor none;
  return normalize({op, normalized_shape, weight, none, eps.value_or(0x1p-23), false}, input, x, nullptr, {},
                   out, {});
}

// The arguments of both ops of a sum, in schema order.
struct Sum {
  const Tensor& input;
  double input_scale;
  int64_t input_zero_point;
  const Tensor& other;
  double other_scale;
  int64_t other_zero_point;
  double output_scale;
  int64_t output_zero_point;
  OptDtype output_dtype;
  std::string_view post_ops;
  at::ArrayRef<double> post_op_args;
};

Tensor add_and_normalize(const Call& call, const Sum& s, OptDtype sum_dtype, Tensor* sum) {
  const char* op = call.op;
  const RealRows x = check_input(op, s.input, s.input_scale, s.input_zero_point);
  const Arg other{op, "other"};
  const RealRows y = check_real(other, {op, "other_scale"}, {op, "other_zero_point"}, s.other, s.other_scale,
                                s.other_zero_point);
  check_same_sizes(other, s.other, s.input.sizes(), "input");
  OutputFinish out;
  check_output(op, s.input.scalar_type(), s.output_scale, s.output_zero_point, s.output_dtype, s.post_ops,
               s.post_op_args, &out);
  if (sum != nullptr) {
    const at::ScalarType dtype = sum_dtype.value_or(at::kFloat);
    check_dtype({op, "sum_dtype"}, dtype, kFloatDtypes);
    check_numel({op, "input"}, s.input.sizes(), c10::elementSize(dtype));
    *sum = empty_output({op, "input"}, s.input.sizes(), dtype);
  }
  return normalize(call, s.input, x, &s.other, y, out, sum != nullptr ? *sum : Tensor());
}

Tensor add_layer_norm(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& other,
                      double other_scale, int64_t other_zero_point, const OptTensor& weight,
                      const OptTensor& bias, double output_scale, int64_t output_zero_point,
                      OptDtype output_dtype, IntArrayRef normalized_shape, double eps,
                      std::string_view post_ops, at::ArrayRef<double> post_op_args) {
  return add_and_normalize({"add_layer_norm", normalized_shape, weight, bias, eps, true},
                           {input, input_scale, input_zero_point, other, other_scale, other_zero_point,
                            output_scale, output_zero_point, output_dtype, post_ops, post_op_args},
                           std::nullopt, nullptr);
}

std::tuple<Tensor, Tensor> add_layer_norm_sum(
    const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& other,
    double other_scale, int64_t other_zero_point, const OptTensor& weight, const OptTensor& bias,
    double output_scale, int64_t output_zero_point, OptDtype output_dtype, IntArrayRef normalized_shape,
    double eps, std::string_view post_ops, at::ArrayRef<double> post_op_args, OptDtype sum_dtype) {
  Tensor sum;
  const Tensor output =
      add_and_normalize({"add_layer_norm_sum", normalized_shape, weight, bias, eps, true},
                        {input, input_scale, input_zero_point, other, other_scale, other_zero_point,
                         output_scale, output_zero_point, output_dtype, post_ops, post_op_args},
                        sum_dtype, &sum);
  return {output, sum};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "layer_norm(Tensor input, float input_scale, int input_zero_point, Tensor? weight, Tensor? bias, "
      "float output_scale, int output_zero_point, ScalarType? output_dtype, SymInt[] normalized_shape, "
      "float eps=1e-05, str post_ops='', float[] post_op_args=[]) -> Tensor");
  m.def(
      "rms_norm(Tensor input, float input_scale, int input_zero_point, Tensor? weight, "
      "float output_scale, int output_zero_point, ScalarType? output_dtype, SymInt[] normalized_shape, "
      "float? eps=None, str post_ops='', float[] post_op_args=[]) -> Tensor");
  m.def(
      "add_layer_norm(Tensor input, float input_scale, int input_zero_point, Tensor other, "
      "float other_scale, int other_zero_point, Tensor? weight, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype, SymInt[] normalized_shape, float eps=1e-05, "
      "str post_ops='', float[] post_op_args=[]) -> Tensor");
  m.def(
      "add_layer_norm_sum(Tensor input, float input_scale, int input_zero_point, Tensor other, "
      "float other_scale, int other_zero_point, Tensor? weight, Tensor? bias, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype, SymInt[] normalized_shape, float eps=1e-05, "
      "str post_ops='', float[] post_op_args=[], ScalarType? sum_dtype=None) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("layer_norm", TORCH_FN((OfSizes<layer_norm>::call)));
  m.impl("rms_norm", TORCH_FN((OfSizes<rms_norm>::call)));
  m.impl("add_layer_norm", TORCH_FN((OfSizes<add_layer_norm>::call)));
  m.impl("add_layer_norm_sum", TORCH_FN((OfSizes<add_layer_norm_sum>::call)));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("layer_norm", TORCH_FN((InferenceOnlyOfSizes<"layer_norm", layer_norm>::call)));
  m.impl("rms_norm", TORCH_FN((InferenceOnlyOfSizes<"rms_norm", rms_norm>::call)));
  m.impl("add_layer_norm", TORCH_FN((InferenceOnlyOfSizes<"add_layer_norm", add_layer_norm>::call)));
  m.impl("add_layer_norm_sum",
         TORCH_FN((InferenceOnlyOfSizes<"add_layer_norm_sum", add_layer_norm_sum>::call)));
}

}  // namespace tae
