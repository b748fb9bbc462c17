// quantize:   q = clamp(round_half_even(x * (1 / scale)) + zero_point, quant_min, quant_max)
// dequantize: x = (q - zero_point) * scale
//
// One scale for the tensor, any shape; the output has the input's memory order or the one
// that memory_format names. NaN gives quant_min. Numerics of torch.ops.quantized_decomposed
// (torch/ao/quantization/ fx/_decomposed.py), which has these ops under the same names.
#include "core/autograd.h"
#include "ops/memory_format.h"

namespace tae {
namespace {

using at::Tensor;
using OptDtype = std::optional<at::ScalarType>;
using OptFormat = std::optional<at::MemoryFormat>;

Tensor quantize_per_tensor(const Tensor& input, double scale, int64_t zero_point, int64_t quant_min,
                           int64_t quant_max, at::ScalarType dtype, OptFormat memory_format) {
  const char* op = "quantize_per_tensor";
  const Arg arg{op, "input"};
  check_tensor(arg, input, kFloatDtypes);
  check_dtype({op, "dtype"}, dtype, kInt8Dtypes);
  const DType to = dtype_of(dtype);
  const QuantBounds bounds = check_bounds(op, quant_min, quant_max, to);
  check_scale({op, "scale"}, scale);
  const int32_t zp = check_zero_point({op, "zero_point"}, zero_point, tae::quant_min(to), tae::quant_max(to));

  const Formatted f(op, input, dtype, memory_format);
  const kernels::QuantizeKernels& k = kernels::quantize_kernels(best_isa());
  const DType from = dtype_of(input.scalar_type());
  const kernels::QuantRange range{to, bounds.lo, bounds.hi};
  const float inverse = inverse_of(scale);
  f.for_runs([&](const Run& r) { quantize_run(k, from, r.src, r.count, inverse, zp, range, r.dst); });
  return f.output();
}

Tensor quantize_per_tensor_tensor(const Tensor& input, const Tensor& scale, const Tensor& zero_point,
                                  int64_t quant_min, int64_t quant_max, at::ScalarType dtype,
                                  OptFormat memory_format) {
  const char* op = "quantize_per_tensor";
  return quantize_per_tensor(input, scale_value({op, "scale"}, scale),
                             zero_point_value({op, "zero_point"}, zero_point), quant_min, quant_max, dtype,
                             memory_format);
}

Tensor dequantize_per_tensor(const Tensor& input, double scale, int64_t zero_point, OptDtype output_dtype,
                             OptFormat memory_format) {
  const char* op = "dequantize_per_tensor";
  const Arg arg{op, "input"};
  check_tensor(arg, input, kInt8Dtypes);
  const at::ScalarType dtype = output_dtype.value_or(at::kFloat);
  check_dtype({op, "output_dtype"}, dtype, kFloatDtypes);
  const DType from = dtype_of(input.scalar_type());
  const DType to = dtype_of(dtype);
  const float s = check_scale({op, "scale"}, scale);
  const int32_t zp = check_zero_point({op, "zero_point"}, zero_point, quant_min(from), quant_max(from));

  const Formatted f(op, input, dtype, memory_format);
  const kernels::QuantizeKernels& k = kernels::quantize_kernels(best_isa());
  f.for_runs([&](const Run& r) { dequantize_run(k, r.src, from, r.count, s, zp, to, r.dst); });
  return f.output();
}

Tensor dequantize_per_tensor_tensor(const Tensor& input, const Tensor& scale, const Tensor& zero_point,
                                    OptDtype output_dtype, OptFormat memory_format) {
  const char* op = "dequantize_per_tensor";
  return dequantize_per_tensor(input, scale_value({op, "scale"}, scale),
                               zero_point_value({op, "zero_point"}, zero_point), output_dtype, memory_format);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "quantize_per_tensor(Tensor input, float scale, int zero_point, int quant_min, "
      "int quant_max, ScalarType dtype, MemoryFormat? memory_format=None) -> Tensor");
  m.def(
      "quantize_per_tensor.tensor(Tensor input, Tensor scale, Tensor zero_point, int quant_min, "
      "int quant_max, ScalarType dtype, MemoryFormat? memory_format=None) -> Tensor");
  m.def(
      "dequantize_per_tensor(Tensor input, float scale, int zero_point, "
      "ScalarType? output_dtype=None, MemoryFormat? memory_format=None) -> Tensor");
  m.def(
      "dequantize_per_tensor.tensor(Tensor input, Tensor scale, Tensor zero_point, "
      "ScalarType? output_dtype=None, MemoryFormat? memory_format=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("quantize_per_tensor", TORCH_FN(quantize_per_tensor));
  m.impl("quantize_per_tensor.tensor", TORCH_FN(quantize_per_tensor_tensor));
  m.impl("dequantize_per_tensor", TORCH_FN(dequantize_per_tensor));
  m.impl("dequantize_per_tensor.tensor", TORCH_FN(dequantize_per_tensor_tensor));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("quantize_per_tensor", TORCH_FN((InferenceOnly<"quantize_per_tensor", quantize_per_tensor>::call)));
  m.impl("quantize_per_tensor.tensor",
         TORCH_FN((InferenceOnly<"quantize_per_tensor.tensor", quantize_per_tensor_tensor>::call)));
  m.impl("dequantize_per_tensor",
         TORCH_FN((InferenceOnly<"dequantize_per_tensor", dequantize_per_tensor>::call)));
  m.impl("dequantize_per_tensor.tensor",
         TORCH_FN((InferenceOnly<"dequantize_per_tensor.tensor", dequantize_per_tensor_tensor>::call)));
}

}  // namespace tae
