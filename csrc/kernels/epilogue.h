// From a tile of raw int32 accumulators to the output: zero points, scales,
// bias, post-ops, requantization. One implementation per ISA, one rule
// (engines/linear.h), the same bits on each.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "core/dtype.h"
#include "core/post_ops.h"
#include "kernels/rows.h"

namespace tae::kernels {

// Constant over a call.
struct EpilogueParams {
  int64_t k = 0;
  const float* weight_scale = nullptr;  // [n], or [1] with weight_scale_stride 0
  int64_t weight_scale_stride = 1;
  const float* bias = nullptr;                 // [n] or null
  const int32_t* column_sum = nullptr;         // [n]: sum_k w[n][k]
  const int32_t* weight_zero_point = nullptr;  // [n] or null; never [1]
  const float* slope = nullptr;                // [n] or null, of prelu
  const float* affine_weight = nullptr;        // [n] or null, of affine, as the next
  const float* affine_bias = nullptr;
  const PostOp* post_ops = nullptr;
  int num_post_ops = 0;
  DType output_dtype = DType::f32;
  float output_scale = 1.f;
  int32_t output_zero_point = 0;
  DType other_dtype = DType::f32;
  float other_scale = 1.f;
  int32_t other_zero_point = 0;
};

// raw[r][c] = sum_k xq[r][k] * w[n0 + c][k] with xq in the u8 domain, so
// acc = raw - zp[r] * column_sum[n] - zp_w[n] * (sum[r] - k * zp[r])   (mod 2^32, exact by the bound on k)
struct EpilogueTile {
  const int32_t* raw = nullptr;
  int64_t raw_stride = 0;  // elements
  int64_t rows = 0;
  int64_t cols = 0;                // any count >= 1; reads and writes stay inside [0, cols)
  int64_t n0 = 0;                  // column of raw[.][0] in the parameter arrays
  const RowParams* row = nullptr;  // of the tile's first row
  int64_t row_step = 1;            // 0: all rows share row[0] (static quantization)
  void* output = nullptr;          // element (first row, n0)
  int64_t output_stride = 0;       // elements
  const void* other = nullptr;     // element (first row, n0) or null
  int64_t other_stride = 0;
};

using EpilogueFn = void (*)(const EpilogueParams& params, const EpilogueTile& tile);

// The best level <= isa that has one (portable, avx2, avx512).
EpilogueFn epilogue(Isa isa);

}  // namespace tae::kernels
