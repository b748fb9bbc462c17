// What the quantize and dequantize ops share: an output with the input's memory
// order, and loops over threads.
#pragma once

#include "core/checks.h"
#include "core/parallel.h"
#include "core/qparams.h"
#include "kernels/quantize.h"

namespace tae {

constexpr std::initializer_list<at::ScalarType> kFloatDtypes = {at::kFloat, at::kBFloat16};
constexpr std::initializer_list<at::ScalarType> kInt8Dtypes = {at::kByte, at::kChar};

// Elements a thread takes at least: about 5 us of work.
constexpr int64_t kElementGrain = 32768;

// An elementwise op's two sides in memory order. `input` is dense (a copy when it had
// holes or overlaps); output has the sizes and strides of torch.empty_like(input).
struct Elementwise {
  at::Tensor input;
  at::Tensor output;
  int64_t numel = 0;
  const uint8_t* src = nullptr;  // null when numel is 0
  uint8_t* dst = nullptr;
};
Elementwise elementwise(const Arg& arg, const at::Tensor& input, at::ScalarType output_dtype);

// Both sides given, in the same memory order or read by somebody who knows.
Elementwise as_they_lie(const Arg& arg, const at::Tensor& input, const at::Tensor& output);

// The same, both sides C-contiguous.
Elementwise contiguous_elementwise(const Arg& arg, const at::Tensor& input, at::ScalarType output_dtype);

// A dense tensor in memory order as [outer][channels][inner] around one dimension.
struct ChannelView {
  int64_t outer = 1;
  int64_t channels = 1;
  int64_t inner = 1;
};
ChannelView channel_view(const at::Tensor& dense_input, int64_t axis);

// -rank <= axis < rank, IndexError; returns it >= 0.
int64_t check_axis(const Arg& arg, int64_t axis, int64_t rank);

// Bytes of one element of a checked dtype.
inline int64_t size_of_element(const at::Tensor& t) { return static_cast<int64_t>(t.element_size()); }

// The factor of quantization, as torch.ops.quantized_decomposed has it.
float inverse_of(double scale);

// quantize / dequantize `count` elements that share one scale, for any float dtype.
void quantize_run(const kernels::QuantizeKernels& k, DType src_dtype, const uint8_t* src, int64_t count,
                  float inverse_scale, int32_t zero_point, const kernels::QuantRange& range, uint8_t* dst);
void dequantize_run(const kernels::QuantizeKernels& k, const uint8_t* src, DType src_dtype, int64_t count,
                    float scale, int32_t zero_point, DType dst_dtype, uint8_t* dst);

}  // namespace tae
