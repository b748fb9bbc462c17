// quantize:   q = clamp(round_half_even(x * (1 / s[c])) + zp[c], quant_min, quant_max)
// dequantize: x = (q - zp[c]) * s[c]
//
// c is the index along `axis`; scales and zero points are [input.size(axis)]. The
// output has the input's memory order. Numerics of torch.ops.quantized_decomposed.
#include "core/autograd.h"
#include "ops/quantize_common.h"

namespace tae {
namespace {

using at::Tensor;
using OptTensor = std::optional<at::Tensor>;
using OptDtype = std::optional<at::ScalarType>;

void check_length(const Arg& arg, const Tensor& t, int64_t channels) {
  check_rank(arg, t, 1);
  check_size(arg, t, 0, channels, "input.size(axis)");
}

// Walks [outer][channels][inner] in pieces that share one scale:
// body(offset of the piece, count, channel).
template <typename Body>
void for_each_run(const ChannelView& v, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kElementGrain / v.inner);
  parallel_for(v.outer * v.channels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i * v.inner, v.inner, i % v.channels);
  });
}

// Rows of [rows][channels]: body(first row, number of rows).
template <typename Body>
void for_each_row_block(const ChannelView& v, const Body& body) {
  const int64_t grain = std::max<int64_t>(1, kElementGrain / v.channels);
  parallel_for(v.outer, grain, [&](int64_t begin, int64_t end) { body(begin, end - begin); });
}

Tensor quantize_per_channel(const Tensor& input, const Tensor& scales, const Tensor& zero_points,
                            int64_t axis, int64_t quant_min, int64_t quant_max, at::ScalarType dtype) {
  const char* op = "quantize_per_channel";
  const Arg arg{op, "input"};
  check_tensor(arg, input, kFloatDtypes);
  check_min_rank(arg, input, 1);
  check_tensor({op, "scales"}, scales, {at::kFloat, at::kDouble});
  check_tensor({op, "zero_points"}, zero_points, {at::kInt, at::kLong});
  check_dtype({op, "dtype"}, dtype, kInt8Dtypes);
  axis = check_axis({op, "axis"}, axis, input.dim());
  const int64_t channels = input.size(axis);
  check_length({op, "scales"}, scales, channels);
  check_length({op, "zero_points"}, zero_points, channels);
  const DType to = dtype_of(dtype);
  const QuantBounds bounds = check_bounds(op, quant_min, quant_max, to);
  std::vector<float> factors = scale_values({op, "scales"}, scales, /*allow_double=*/true);
  for (float& s : factors) s = inverse_of(s);
  const std::vector<int32_t> zps =
      zero_point_values({op, "zero_points"}, zero_points, tae::quant_min(to), tae::quant_max(to));

  const Elementwise e = elementwise(arg, input, dtype);
  if (e.numel == 0) return e.output;
  const kernels::QuantizeKernels& k = kernels::quantize_kernels(best_isa());
  const DType from = dtype_of(input.scalar_type());
  const int64_t step = size_of_element(input);
  const kernels::QuantRange range{to, bounds.lo, bounds.hi};
  const ChannelView v = channel_view(e.input, axis);
  if (v.inner > 1 || channels == 1) {
    for_each_run(v, [&](int64_t offset, int64_t count, int64_t c) {
      quantize_run(k, from, e.src + offset * step, count, factors[c], zps[c], range, e.dst + offset);
    });
    return e.output;
  }
  for_each_row_block(v, [&](int64_t row, int64_t rows) {
    const uint8_t* src = e.src + row * channels * step;
    uint8_t* dst = e.dst + row * channels;
    if (from == DType::f32)
      k.quantize_channels_f32(reinterpret_cast<const float*>(src), rows, channels, factors.data(), zps.data(),
                              range, dst);
    else
      k.quantize_channels_bf16(reinterpret_cast<const uint16_t*>(src), rows, channels, factors.data(),
                               zps.data(), range, dst);
  });
  return e.output;
}

Tensor dequantize_per_channel(const Tensor& input, const Tensor& scales, const OptTensor& zero_points,
                              int64_t axis, OptDtype output_dtype) {
  const char* op = "dequantize_per_channel";
  const Arg arg{op, "input"};
  check_tensor(arg, input, kInt8Dtypes);
  check_min_rank(arg, input, 1);
  check_tensor({op, "scales"}, scales, {at::kFloat, at::kDouble});
  const bool has_zero_points = zero_points.has_value() && zero_points->defined();
  if (has_zero_points) check_tensor({op, "zero_points"}, *zero_points, {at::kInt, at::kLong});
  const at::ScalarType dtype = output_dtype.value_or(at::kFloat);
  check_dtype({op, "output_dtype"}, dtype, kFloatDtypes);
  axis = check_axis({op, "axis"}, axis, input.dim());
  const int64_t channels = input.size(axis);
  check_length({op, "scales"}, scales, channels);
  if (has_zero_points) check_length({op, "zero_points"}, *zero_points, channels);
  const DType from = dtype_of(input.scalar_type());
  const DType to = dtype_of(dtype);
  const std::vector<float> s = scale_values({op, "scales"}, scales, /*allow_double=*/true);
  std::vector<int32_t> zps(channels, 0);
  if (has_zero_points)
    zps = zero_point_values({op, "zero_points"}, *zero_points, quant_min(from), quant_max(from));

  const Elementwise e = elementwise(arg, input, dtype);
  if (e.numel == 0) return e.output;
  const kernels::QuantizeKernels& k = kernels::quantize_kernels(best_isa());
  const int64_t step = size_of_element(e.output);
  const ChannelView v = channel_view(e.input, axis);
  if (v.inner > 1 || channels == 1) {
    for_each_run(v, [&](int64_t offset, int64_t count, int64_t c) {
      dequantize_run(k, e.src + offset, from, count, s[c], zps[c], to, e.dst + offset * step);
    });
    return e.output;
  }
  for_each_row_block(v, [&](int64_t row, int64_t rows) {
    const uint8_t* src = e.src + row * channels;
    uint8_t* dst = e.dst + row * channels * step;
    if (to == DType::f32)
      k.dequantize_channels_f32(src, from, rows, channels, s.data(), zps.data(),
                                reinterpret_cast<float*>(dst));
    else
      k.dequantize_channels_bf16(src, from, rows, channels, s.data(), zps.data(),
                                 reinterpret_cast<uint16_t*>(dst));
  });
  return e.output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "quantize_per_channel(Tensor input, Tensor scales, Tensor zero_points, int axis, "
      "int quant_min, int quant_max, ScalarType dtype) -> Tensor");
  m.def(
      "dequantize_per_channel(Tensor input, Tensor scales, Tensor? zero_points, int axis, "
      "ScalarType? output_dtype=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("quantize_per_channel", TORCH_FN(quantize_per_channel));
  m.impl("dequantize_per_channel", TORCH_FN(dequantize_per_channel));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("quantize_per_channel",
         TORCH_FN((InferenceOnly<"quantize_per_channel", quantize_per_channel>::call)));
  m.impl("dequantize_per_channel",
         TORCH_FN((InferenceOnly<"dequantize_per_channel", dequantize_per_channel>::call)));
}

}  // namespace tae
