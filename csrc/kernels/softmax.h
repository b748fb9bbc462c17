// Softmax of rows, from quantized or float values to quantized or float ones.
// Single-threaded and torch-free; the op splits work over threads.
//
//   x = f32(q - zero_point) * scale, or value * scale for a float row; plus mask
//   e = exp(x - max x)                         f32, exp of post_ops_constants.h
//   sum = e[0] + e[1] + ...                    16 partial sums by index, then pairs
//   float output:      y = e * (1 / sum)
//   quantized output:  y = clamp(round_half_even(e * (inverse_scale / sum)) + zero_point)
//
// Every step one f32 operation, so that results do not depend on the ISA. A row with a
// NaN, with +inf or with nothing but -inf is NaN throughout (quantized: the lowest value).
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "core/dtype.h"

namespace tae::kernels {

struct SoftmaxParams {
  DType input_dtype = DType::f32;  // f32, bf16, qu8 or qs8
  float input_scale = 1.f;
  int32_t input_zero_point = 0;  // quantized input only
  DType output_dtype = DType::f32;
  float inverse_scale = 1.f;  // quantized output only
  int32_t output_zero_point = 0;
};

struct SoftmaxKernels {
  // One row of count >= 1 values; mask [count] or null; scratch: [count] floats.
  void (*row)(const SoftmaxParams& p, const void* src, const float* mask, int64_t count, float* scratch,
              void* dst);
};

// The table of the best level <= isa that has one (portable, avx2, avx512).
const SoftmaxKernels& softmax_kernels(Isa isa);

}  // namespace tae::kernels
