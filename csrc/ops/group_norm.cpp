// group_norm:    y = quantize(post_ops((x - mean) / sqrt(var + eps) * weight[c] + bias[c])),
//                mean and var (the biased one) over a sample's group of channels
// instance_norm: a group for each channel
// batch_norm:    the same with mean and var given for each channel
//
// input [N, C, *] uint8 or int8, x = dequantize(input); batch_norm takes float32 and bfloat16
// too, which makes batch norm and quantize one. Rounding: kernels/norm.h; the sums
// are exact integers, an 8-bit result is within one step of that of the formula in f64.
// The output has input's memory order where that is contiguous or channels last, else it is
// contiguous.
//
// Group normalization: Wu, He, arXiv:1803.08494, equations 1 to 3. Batch normalization:
// Ioffe, Szegedy, arXiv:1502.03167, algorithm 2.
#include "core/autograd.h"
#include "ops/channel_norm.h"

namespace tae {
namespace {

using at::Tensor;
using OptDtype = std::optional<at::ScalarType>;
using OptTensor = std::optional<at::Tensor>;

void check_images(const char* op, const Tensor& input, int64_t least_rank) {
  check_min_rank({op, "input"}, input, least_rank);
  for (int64_t d = 1; d < input.dim(); ++d)
    TAE_CHECK_VALUE(input.size(d) >= 1, (Arg{op, "input"}), "have no dimension of size 0 but the batch",
                    c10::str("sizes ", input.sizes()));
}

// The arguments that all of them have, in schema order.
struct Call {
  const Tensor& input;
  double input_scale;
  int64_t input_zero_point;
  double output_scale;
  int64_t output_zero_point;
  OptDtype output_dtype;
  std::string_view post_ops;
  at::ArrayRef<double> post_op_args;
};

void check_call(const char* op, const Call& call, int64_t least_rank, OutputFinish* out) {
  check_images(op, call.input, least_rank);
  check_output(op, call.input.scalar_type(), call.output_scale, call.output_zero_point, call.output_dtype,
               call.post_ops, call.post_op_args, out);
}

// groups 0: one for each channel.
Tensor normalize_groups(const char* op, const Call& call, const OptTensor& weight, const OptTensor& bias,
                        int64_t groups, double eps, int64_t least_rank) {
  const kernels::Operand operand = check_operand({op, "input"}, {op, "input_scale"}, {op, "input_zero_point"},
                                                 call.input, call.input_scale, call.input_zero_point);
  OutputFinish out;
  check_call(op, call, least_rank, &out);
  const int64_t channels = call.input.size(1);
  kernels::GroupNumbers g;
  g.eps = check_eps(op, eps);
  const Parameter w = check_parameter({op, "weight"}, weight, channels, "input.size(1)");
  const Parameter shift = check_parameter({op, "bias"}, bias, channels, "input.size(1)");
  const ChannelImages i = channel_images(op, call.input, out.dtype);
  if (i.src == nullptr) return i.output;
  g.channels = channels;
  g.groups = groups == 0 ? channels : groups;
  g.count = i.inner;
  g.weight = w.data;
  g.bias = shift.data;
  const Arg arg{op, "input"};
  const ChannelWork work = channel_work(i, operand, out, &g.factor);
  if (channel_pieces(i, g) >= num_threads()) {
    normalize_pieces(arg, work, g);
    return i.output;
  }
  std::vector<kernels::ByteSums> sums = make_vector<kernels::ByteSums>(arg, i.samples * channels);
  std::vector<float> a = make_vector<float>(arg, i.samples * channels);
  std::vector<float> b = make_vector<float>(arg, i.samples * channels);
  sum_channels(work, sums.data());
  for (int64_t at = 0; at < i.samples * channels; at += channels)
    kernels::group_coefficients(g, operand, sums.data() + at, a.data() + at, b.data() + at);
  apply_channels(arg, work, a.data(), b.data(), false);
  return i.output;
}

Tensor group_norm(const Tensor& input, double input_scale, int64_t input_zero_point, const OptTensor& weight,
                  const OptTensor& bias, double output_scale, int64_t output_zero_point,
                  OptDtype output_dtype, int64_t num_groups, double eps, std::string_view post_ops,
                  at::ArrayRef<double> post_op_args) {
  const char* op = "group_norm";
  check_tensor({op, "input"}, input, kInt8Dtypes);
  check_min_rank({op, "input"}, input, 2);
  TAE_CHECK_VALUE(num_groups >= 1 && input.size(1) % num_groups == 0, (Arg{op, "num_groups"}),
                  c10::str("be at least 1 and divide input.size(1) (", input.size(1), ")"), num_groups);
  return normalize_groups(op,
                          {input, input_scale, input_zero_point, output_scale, output_zero_point,
                           output_dtype, post_ops, post_op_args},
                          weight, bias, num_groups, eps, 2);
}

Tensor instance_norm(const Tensor& input, double input_scale, int64_t input_zero_point,
                     const OptTensor& weight, const OptTensor& bias, double output_scale,
                     int64_t output_zero_point, OptDtype output_dtype, double eps, std::string_view post_ops,
                     at::ArrayRef<double> post_op_args) {
  return normalize_groups("instance_norm",
                          {input, input_scale, input_zero_point, output_scale, output_zero_point,
                           output_dtype, post_ops, post_op_args},
                          weight, bias, 0, eps, 3);
}

Tensor batch_norm(const Tensor& input, double input_scale, int64_t input_zero_point,
                  const Tensor& running_mean, const Tensor& running_var, const OptTensor& weight,
                  const OptTensor& bias, double output_scale, int64_t output_zero_point,
                  OptDtype output_dtype, double eps, std::string_view post_ops,
                  at::ArrayRef<double> post_op_args) {
  const char* op = "batch_norm";
  const kernels::RealRows real = check_real({op, "input"}, {op, "input_scale"}, {op, "input_zero_point"},
                                            input, input_scale, input_zero_point);
  const kernels::Operand operand{nullptr, real.dtype, real.scale, real.zero_point};
  OutputFinish out;
  check_call(op,
             {input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype, post_ops,
              post_op_args},
             2, &out);
  const int64_t channels = input.size(1);
  const char* what = "input.size(1)";
  check_tensor({op, "running_mean"}, running_mean, kFloatDtypes);
  check_tensor({op, "running_var"}, running_var, kFloatDtypes);
  const Parameter mean = check_parameter({op, "running_mean"}, running_mean, channels, what);
  const Parameter var = check_parameter({op, "running_var"}, running_var, channels, what);
  const Parameter w = check_parameter({op, "weight"}, weight, channels, what);
  const Parameter shift = check_parameter({op, "bias"}, bias, channels, what);
  kernels::BatchNumbers numbers{channels, check_eps(op, eps), mean.data, var.data, w.data, shift.data};
  const ChannelImages i = channel_images(op, input, out.dtype);
  if (i.src == nullptr) return i.output;
  const ChannelWork work = channel_work(i, operand, out, &numbers.factor);
  std::vector<float> a = make_vector<float>({op, "input"}, channels);
  std::vector<float> b = make_vector<float>({op, "input"}, channels);
  kernels::batch_coefficients(numbers, operand.scale, a.data(), b.data());
  apply_channels({op, "input"}, work, a.data(), b.data(), true);
  return i.output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "group_norm(Tensor input, float input_scale, int input_zero_point, Tensor? weight, Tensor? bias, "
      "float output_scale, int output_zero_point, ScalarType? output_dtype, int num_groups, "
      "float eps=1e-05, str post_ops='', float[] post_op_args=[]) -> Tensor");
  m.def(
      "instance_norm(Tensor input, float input_scale, int input_zero_point, Tensor? weight, Tensor? bias, "
      "float output_scale, int output_zero_point, ScalarType? output_dtype, float eps=1e-05, "
      "str post_ops='', float[] post_op_args=[]) -> Tensor");
  m.def(
      "batch_norm(Tensor input, float input_scale, int input_zero_point, Tensor running_mean, "
      "Tensor running_var, Tensor? weight, Tensor? bias, float output_scale, int output_zero_point, "
      "ScalarType? output_dtype, float eps=1e-05, str post_ops='', float[] post_op_args=[]) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("group_norm", TORCH_FN(group_norm));
  m.impl("instance_norm", TORCH_FN(instance_norm));
  m.impl("batch_norm", TORCH_FN(batch_norm));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("group_norm", TORCH_FN((InferenceOnly<"group_norm", group_norm>::call)));
  m.impl("instance_norm", TORCH_FN((InferenceOnly<"instance_norm", instance_norm>::call)));
  m.impl("batch_norm", TORCH_FN((InferenceOnly<"batch_norm", batch_norm>::call)));
}

}  // namespace tae
