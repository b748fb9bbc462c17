#include "ops/elementwise_common.h"

#include "ops/post_ops.h"

namespace tae {

kernels::Operand check_operand(const Arg& arg, const Arg& scale_arg, const Arg& zero_point_arg,
                               const at::Tensor& t, double scale, int64_t zero_point) {
  check_tensor(arg, t, kInt8Dtypes);
  kernels::Operand o;
  o.dtype = dtype_of(t.scalar_type());
  o.scale = check_scale(scale_arg, scale);
  o.zero_point = check_zero_point(zero_point_arg, zero_point, quant_min(o.dtype), quant_max(o.dtype));
  return o;
}

void check_output(const char* op, at::ScalarType input_dtype, double scale, int64_t zero_point,
                  std::optional<at::ScalarType> dtype, std::string_view post_ops, at::ArrayRef<double> args,
                  OutputFinish* result) {
  result->dtype = dtype.value_or(input_dtype);
  check_dtype({op, "output_dtype"}, result->dtype, {at::kByte, at::kChar, at::kFloat, at::kBFloat16});
  kernels::Finish& f = result->finish;
  f.dtype = dtype_of(result->dtype);
  f.zero_point = check_output_qparams(op, f.dtype, scale, zero_point).zero_point;
  if (is_quantized(f.dtype)) f.inverse_scale = inverse_of(scale);
  result->post_ops = parse_post_ops(op, post_ops, args);
  check_no_operands(op, post_ops, result->post_ops);
  f.post_ops = result->post_ops.data();
  f.num_post_ops = static_cast<int>(result->post_ops.size());
}

}  // namespace tae
