// quantize:   q = clamp(round_half_even(x * (1 / s[row])) + zp[row], quant_min, quant_max)
// dequantize: x = (q - zp[row]) * s[row]
//
// A row is the last dimension of input [*, K]; scales and zero points are [*, 1]. The
// output is contiguous. Numerics of torch.ops.quantized_decomposed.
#include "core/autograd.h"
#include "ops/quantize_common.h"

namespace tae {
namespace {

using at::Tensor;
using OptDtype = std::optional<at::ScalarType>;

// [*, 1] beside an input of [*, K].
void check_row_values(const Arg& arg, const Tensor& t, const Tensor& input) {
  c10::SmallVector<int64_t, 6> sizes(input.sizes().begin(), input.sizes().end());
  sizes.back() = 1;
  TAE_CHECK_VALUE(t.sizes() == at::IntArrayRef(sizes), arg,
                  c10::str("have sizes ", at::IntArrayRef(sizes), ", one value for each row of input"),
                  c10::str("sizes ", t.sizes()));
}

template <typename Body>
void for_each_row(int64_t rows, int64_t cols, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kElementGrain / cols);
  parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

Tensor quantize_per_token(const Tensor& input, const Tensor& scales, const Tensor& zero_points,
                          int64_t quant_min, int64_t quant_max, at::ScalarType dtype) {
  const char* op = "quantize_per_token";
  const Arg arg{op, "input"};
  check_tensor(arg, input, kFloatDtypes);
  check_min_rank(arg, input, 1);
  check_tensor({op, "scales"}, scales, {at::kFloat, at::kDouble});
  check_tensor({op, "zero_points"}, zero_points, {at::kInt, at::kLong});
  check_dtype({op, "dtype"}, dtype, kInt8Dtypes);
  check_row_values({op, "scales"}, scales, input);
  check_row_values({op, "zero_points"}, zero_points, input);
  const DType to = dtype_of(dtype);
  const QuantBounds bounds = check_bounds(op, quant_min, quant_max, to);
  const std::vector<float> s = scale_values({op, "scales"}, scales, /*allow_double=*/true);
  const std::vector<int32_t> zps =
      zero_point_values({op, "zero_points"}, zero_points, tae::quant_min(to), tae::quant_max(to));

  const Elementwise e = contiguous_elementwise(arg, input, dtype);
  if (e.numel == 0) return e.output;
  const kernels::QuantizeKernels& k = kernels::quantize_kernels(best_isa());
  const DType from = dtype_of(input.scalar_type());
  const int64_t step = size_of_element(input);
  const kernels::QuantRange range{to, bounds.lo, bounds.hi};
  const int64_t cols = input.size(-1);
  for_each_row(e.numel / cols, cols, [&](int64_t row) {
    quantize_run(k, from, e.src + row * cols * step, cols, inverse_of(s[row]), zps[row], range,
                 e.dst + row * cols);
  });
  return e.output;
}

Tensor dequantize_per_token(const Tensor& input, const Tensor& scales, const Tensor& zero_points,
                            OptDtype output_dtype) {
  const char* op = "dequantize_per_token";
  const Arg arg{op, "input"};
  check_tensor(arg, input, kInt8Dtypes);
  check_min_rank(arg, input, 1);
  check_tensor({op, "scales"}, scales, {at::kFloat, at::kDouble});
  check_tensor({op, "zero_points"}, zero_points, {at::kInt, at::kLong});
  const at::ScalarType dtype = output_dtype.value_or(at::kFloat);
  check_dtype({op, "output_dtype"}, dtype, kFloatDtypes);
  check_row_values({op, "scales"}, scales, input);
  check_row_values({op, "zero_points"}, zero_points, input);
  const DType from = dtype_of(input.scalar_type());
  const DType to = dtype_of(dtype);
  const std::vector<float> s = scale_values({op, "scales"}, scales, /*allow_double=*/true);
  const std::vector<int32_t> zps =
      zero_point_values({op, "zero_points"}, zero_points, quant_min(from), quant_max(from));

  const Elementwise e = contiguous_elementwise(arg, input, dtype);
  if (e.numel == 0) return e.output;
  const kernels::QuantizeKernels& k = kernels::quantize_kernels(best_isa());
  const int64_t step = size_of_element(e.output);
  const int64_t cols = input.size(-1);
  for_each_row(e.numel / cols, cols, [&](int64_t row) {
    dequantize_run(k, e.src + row * cols, from, cols, s[row], zps[row], to, e.dst + row * cols * step);
  });
  return e.output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "quantize_per_token(Tensor input, Tensor scales, Tensor zero_points, int quant_min, "
      "int quant_max, ScalarType dtype) -> Tensor");
  m.def(
      "dequantize_per_token(Tensor input, Tensor scales, Tensor zero_points, "
      "ScalarType? output_dtype=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("quantize_per_token", TORCH_FN(quantize_per_token));
  m.impl("dequantize_per_token", TORCH_FN(dequantize_per_token));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("quantize_per_token", TORCH_FN((InferenceOnly<"quantize_per_token", quantize_per_token>::call)));
  m.impl("dequantize_per_token",
         TORCH_FN((InferenceOnly<"dequantize_per_token", dequantize_per_token>::call)));
}

}  // namespace tae
