// matmul: y = quantize(post_ops(dequantize(a) @ dequantize(b))), both operands activations
//
// Sizes and broadcasting of torch.matmul for two and more dimensions, any strides; the
// output is contiguous. Rounding in engines/matmul.h. Float outputs leave the quantize out.
#include "engines/matmul.h"

#include "core/autograd.h"
#include "kernels/vec_float_env.h"
#include "ops/matmul_common.h"

namespace tae {
namespace {

using at::Tensor;
using OptDtype = std::optional<at::ScalarType>;
using Sizes = std::vector<int64_t>;

// Leading sizes of both, broadcast, and m and n.
Sizes output_sizes(const char* op, const Tensor& a, const Tensor& b) {
  check_min_rank({op, "input"}, a, 2);
  const Arg other{op, "other"};
  check_min_rank(other, b, 2);
  check_size(other, b, b.dim() - 2, a.size(-1), "input.size(-1)");
  check_sum_length({op, "input"}, "size(-1)", a.size(-1));
  Sizes sizes(std::max(a.dim(), b.dim()));
  const size_t rank = sizes.size();
  sizes[rank - 2] = a.size(-2);
  sizes[rank - 1] = b.size(-1);
  for (int64_t i = 3; i <= static_cast<int64_t>(rank); ++i) {
    const int64_t x = i <= a.dim() ? a.size(-i) : 1, y = i <= b.dim() ? b.size(-i) : 1;
    TAE_CHECK_VALUE(x == y || x == 1 || y == 1, other,
                    c10::str("have batch sizes that broadcast with input's sizes ", a.sizes()),
                    c10::str("sizes ", b.sizes()));
    sizes[rank - static_cast<size_t>(i)] = x == 1 ? y : x;
  }
  return sizes;
}

Tensor matmul(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& other,
              double other_scale, int64_t other_zero_point, double output_scale, int64_t output_zero_point,
              OptDtype output_dtype, std::string_view post_ops, at::ArrayRef<double> post_op_args) {
  const char* op = "matmul";
  const Arg a_arg{op, "input"}, b_arg{op, "other"};
  const kernels::Operand a = check_operand(a_arg, {op, "input_scale"}, {op, "input_zero_point"}, input,
                                           input_scale, input_zero_point);
  const kernels::Operand b = check_operand(b_arg, {op, "other_scale"}, {op, "other_zero_point"}, other,
                                           other_scale, other_zero_point);
  OutputFinish out;
  check_output(op, input.scalar_type(), output_scale, output_zero_point, output_dtype, post_ops, post_op_args,
               &out);
  const Sizes sizes = output_sizes(op, input, other);
  check_storage(a_arg, input);
  check_storage(b_arg, other);
  const int64_t numel = check_numel(a_arg, sizes, c10::elementSize(out.dtype));
  const Tensor output = empty_output(a_arg, sizes, out.dtype);
  if (numel == 0) return output;

  // Scales are multiplied and results rounded as anywhere, whatever mode the caller's thread is in.
  const kernels::DefaultFloatEnv env;
  MatmulProblem p;
  p.m = input.size(-2);
  p.n = other.size(-1);
  p.k = input.size(-1);
  p.batch = numel / (p.m * p.n);
  const at::IntArrayRef batch(sizes.data(), sizes.size() - 2);
  const MatrixOperand x = matrix_operand(a_arg, a, input, false, batch, p.batch);
  const MatrixOperand y = matrix_operand(b_arg, b, other, true, batch, p.batch);
  p.a = x.data;
  p.b = y.data;
  p.post_ops = std::move(out.post_ops);
  p.output_dtype = out.finish.dtype;
  if (is_quantized(p.output_dtype)) p.output_scale = nearest_float(output_scale);
  p.output_zero_point = out.finish.zero_point;
  p.output = output.mutable_data_ptr();
  run_engine(a_arg, input.sizes(), p, select_matmul);
  return output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "matmul(Tensor input, float input_scale, int input_zero_point, Tensor other, float other_scale, "
      "int other_zero_point, float output_scale=1., int output_zero_point=0, "
      "ScalarType? output_dtype=None, str post_ops='', float[] post_op_args=[]) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) { m.impl("matmul", TORCH_FN(matmul)); }

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("matmul", TORCH_FN((InferenceOnly<"matmul", matmul>::call)));
}

}  // namespace tae
