// Elementwise quantize, dequantize and min/max over plain buffers: the inner
// loops of the ops quantize_per_{tensor,channel,token} and their inverses. An op
// views its tensor as [outer, channels, inner] and calls
//   - the run kernels once per stretch that shares one scale (tensor: 1 call or one
//     per thread; token: one per row; channel, inner > 1: outer * channels calls),
//   - the channels kernels when the channel axis is the last one (inner == 1).
// Single-threaded and torch-free; the op splits work over threads.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "core/dtype.h"

namespace tae::kernels {

// Target of a quantization. Bounds lie inside the type's range, lo <= hi.
struct QuantRange {
  DType dtype = DType::qu8;  // qu8 or qs8
  int32_t lo = 0;
  int32_t hi = 255;
};

// quantize:   q = clamp(round_half_even(x * inverse_scale) + zero_point, lo, hi),
//             the product in f32 as ATen has it; NaN gives lo, +-inf gives hi / lo.
//             Zero points lie inside the range of the integer type (the op checks).
// dequantize: x = f32(q - zero_point) * scale, bf16 rounded to nearest even; any
//             zero point with |zero_point| <= 2^30.
// Integer data is passed as bytes, its signedness as a DType. Results do not depend
// on the ISA, the caller's rounding mode or flush-to-zero state. No pointer needs
// alignment; source and destination must not overlap.
struct QuantizeKernels {
  // One scale and zero point for `count` contiguous elements.
  void (*quantize_f32)(const float* src, int64_t count, float inverse_scale, int32_t zero_point,
                       const QuantRange& range, void* dst);
  void (*quantize_bf16)(const uint16_t* src, int64_t count, float inverse_scale, int32_t zero_point,
                        const QuantRange& range, void* dst);
  void (*dequantize_f32)(const void* src, DType src_dtype, int64_t count, float scale, int32_t zero_point,
                         float* dst);
  void (*dequantize_bf16)(const void* src, DType src_dtype, int64_t count, float scale, int32_t zero_point,
                          uint16_t* dst);

  // [rows][channels] contiguous; inverse_scale, scale, zero_point are [channels];
  // zero_point null means 0 everywhere.
  void (*quantize_channels_f32)(const float* src, int64_t rows, int64_t channels, const float* inverse_scale,
                                const int32_t* zero_point, const QuantRange& range, void* dst);
  void (*quantize_channels_bf16)(const uint16_t* src, int64_t rows, int64_t channels,
                                 const float* inverse_scale, const int32_t* zero_point,
                                 const QuantRange& range, void* dst);
  void (*dequantize_channels_f32)(const void* src, DType src_dtype, int64_t rows, int64_t channels,
                                  const float* scale, const int32_t* zero_point, float* dst);
  void (*dequantize_channels_bf16)(const void* src, DType src_dtype, int64_t rows, int64_t channels,
                                   const float* scale, const int32_t* zero_point, uint16_t* dst);

  // Smallest and largest of count >= 1 values (0 is not included; rows.h has that).
  // Both NaN when any value is NaN; infinities are returned as they are.
  void (*min_max_f32)(const float* src, int64_t count, float* min, float* max);
  void (*min_max_bf16)(const uint16_t* src, int64_t count, float* min, float* max);
};

// The table of the best level <= isa that has one (portable, avx2, avx512).
const QuantizeKernels& quantize_kernels(Isa isa);

}  // namespace tae::kernels
