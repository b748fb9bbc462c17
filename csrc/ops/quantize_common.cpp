#include "ops/quantize_common.h"

#include "core/fork.h"
#include "core/result_memory.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

// Opaque to the compiler, which would move pure arithmetic across DefaultFloatEnv.
[[gnu::noipa]] float rounded_inverse(double scale) { return static_cast<float>(1.0 / scale); }

}  // namespace

float inverse_of(double scale) {
  const kernels::DefaultFloatEnv env;
  return rounded_inverse(scale);
}

Elementwise as_they_lie(const Arg& arg, const at::Tensor& input, const at::Tensor& output) {
  Elementwise e{input, output, input.numel()};
  if (e.numel == 0) return e;
  check_storage(arg, input);
  e.src = static_cast<const uint8_t*>(input.const_data_ptr());
  e.dst = static_cast<uint8_t*>(output.mutable_data_ptr());
  return e;
}

Elementwise elementwise(const Arg& arg, const at::Tensor& input, at::ScalarType output_dtype) {
  check_numel(arg, input.sizes(), c10::elementSize(output_dtype));
  if (input.is_non_overlapping_and_dense()) {
    const at::Tensor output = allocate(
        arg, input.sizes(), [&] { return new_tensor(input.sizes(), input.strides(), output_dtype); });
    return as_they_lie(arg, input, output);
  }
  // Holes or overlaps: torch's rule for the order of the output's dimensions.
  check_storage(arg, input);
  SerialAfterFork serial;
  const at::Tensor output = allocate(
      arg, input.sizes(), [&] { return at::empty_like(input, input.options().dtype(output_dtype)); });
  const at::Tensor copy = allocate(arg, input.sizes(), [&] {
    return new_tensor(output.sizes(), output.strides(), input.scalar_type()).copy_(input);
  });
  return as_they_lie(arg, copy, output);
}

Elementwise contiguous_elementwise(const Arg& arg, const at::Tensor& input, at::ScalarType output_dtype) {
  check_numel(arg, input.sizes(), c10::elementSize(output_dtype));
  return as_they_lie(arg, dense(arg, input), empty_output(arg, input.sizes(), output_dtype));
}

ChannelView channel_view(const at::Tensor& t, int64_t axis) {
  ChannelView v;
  v.channels = t.size(axis);
  // A dense tensor steps over exactly the dimensions inside the axis; the stride of
  // a dimension of size 1 says nothing.
  v.inner = v.channels == 1 ? t.numel() : t.stride(axis);
  v.outer = t.numel() == 0 ? 0 : t.numel() / (v.channels * v.inner);
  return v;
}

int64_t check_axis(const Arg& arg, int64_t axis, int64_t rank) {
  TAE_CHECK_INDEX(axis >= -rank && axis < rank, arg, c10::str("be in [", -rank, ", ", rank - 1, "]"), axis);
  return axis < 0 ? axis + rank : axis;
}

void quantize_run(const kernels::QuantizeKernels& k, DType src_dtype, const uint8_t* src, int64_t count,
                  float inverse_scale, int32_t zero_point, const kernels::QuantRange& range, uint8_t* dst) {
  if (src_dtype == DType::f32)
    k.quantize_f32(reinterpret_cast<const float*>(src), count, inverse_scale, zero_point, range, dst);
  else
    k.quantize_bf16(reinterpret_cast<const uint16_t*>(src), count, inverse_scale, zero_point, range, dst);
}

void dequantize_run(const kernels::QuantizeKernels& k, const uint8_t* src, DType src_dtype, int64_t count,
                    float scale, int32_t zero_point, DType dst_dtype, uint8_t* dst) {
  if (dst_dtype == DType::f32)
    k.dequantize_f32(src, src_dtype, count, scale, zero_point, reinterpret_cast<float*>(dst));
  else
    k.dequantize_bf16(src, src_dtype, count, scale, zero_point, reinterpret_cast<uint16_t*>(dst));
}

}  // namespace tae
