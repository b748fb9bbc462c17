// From input rows to the u8 rows that the int8 kernels read, one table per ISA.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "core/dtype.h"
#include "kernels/row_params.h"

namespace tae::kernels {

// dst has dst_stride >= k bytes; bytes [k, dst_stride) are set to 0.
struct RowKernels {
  // min and max over count values, 0 included; both NaN if any value is NaN or
  // infinite.
  void (*min_max_f32)(const float* src, int64_t count, float* min, float* max);
  void (*min_max_bf16)(const uint16_t* src, int64_t count, float* min, float* max);
  // q = clamp(round_half_even(x * inverse_scale) + zero_point, lo, hi), u8 domain.
  // Returns the sum of the k values. NaN scale is handled by the caller.
  int32_t (*quantize_f32)(const float* src, int64_t k, float inverse_scale, int32_t zero_point, int32_t lo,
                          int32_t hi, uint8_t* dst, int64_t dst_stride);
  int32_t (*quantize_bf16)(const uint16_t* src, int64_t k, float inverse_scale, int32_t zero_point,
                           int32_t lo, int32_t hi, uint8_t* dst, int64_t dst_stride);
  // q = clamp(round_half_even(x * inverse_scale) + zero_point, 0, 255) for values whose
  // |x * inverse_scale| < 2^31, as those of a row that gave the scale are. No sum.
  void (*quantize_full_f32)(const float* src, int64_t k, float inverse_scale, int32_t zero_point,
                            uint8_t* dst, int64_t dst_stride);
  void (*quantize_full_bf16)(const uint16_t* src, int64_t k, float inverse_scale, int32_t zero_point,
                             uint8_t* dst, int64_t dst_stride);
  // Integer rows: copy (qu8) or add 128 (qs8), pad with 0; returns the sum of the u8 values.
  int32_t (*copy_u8)(const uint8_t* src, int64_t k, uint8_t* dst, int64_t dst_stride);
  int32_t (*shift_s8)(const int8_t* src, int64_t k, uint8_t* dst, int64_t dst_stride);
};

// The table of the best level <= isa that has one (portable, avx2, avx512).
const RowKernels& row_kernels(Isa isa);

}  // namespace tae::kernels
