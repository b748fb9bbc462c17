// Products of two quantized activations as engines see them, for each matrix of a batch:
//
//   acc[m][n] = sum_k (a[m][k] - zp_a) * (b[k][n] - zp_b)       exact, int32
//   r         = post_ops(f32(acc) * (s_a * s_b))                f32, no FMA
//   float output:      y = r (bf16: rounded to nearest even)
//   quantized output:  y = clamp(round_half_even(r / s_out) + zp_out), NaN -> quant_min
//
// Nothing is packed before the call: both operands change with it. Torch-free.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "core/post_ops.h"
#include "core/result.h"
#include "engines/linear.h"

namespace tae {

// Largest k whose accumulator cannot leave int32: 255 * 255 a term.
constexpr int64_t kMaxMatmulK = kMaxExactKAsymmetricWeight;

struct MatmulOperand {
  const uint8_t* data = nullptr;
  DType dtype = DType::qu8;  // qu8 or qs8
  float scale = 1.f;
  int32_t zero_point = 0;
  int64_t row_stride = 0;           // in elements, of the first of the last two dimensions
  int64_t column_stride = 0;        // of the second
  const int64_t* offset = nullptr;  // [batch] first element of each matrix
};

struct MatmulProblem {
  int64_t batch = 0, m = 0, n = 0, k = 0;  // all >= 1 but k, which may be 0
  MatmulOperand a;                         // [m][k], column_stride 1
  MatmulOperand b;                         // [k][n], one of its strides is 1
  PostOps post_ops;                        // never `add`
  DType output_dtype = DType::qu8;
  float output_scale = 1.f;
  int32_t output_zero_point = 0;
  void* output = nullptr;  // [batch][m][n], contiguous
};

// Thread-safe. Throws std::bad_alloc only.
using MatmulRun = void (*)(const MatmulProblem& p);
Result<MatmulRun> find_matmul_native(const MatmulProblem& p);
Result<MatmulRun> find_matmul_reference(const MatmulProblem& p);

}  // namespace tae
