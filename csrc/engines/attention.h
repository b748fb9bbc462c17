// Scaled dot-product attention of 8-bit tensors, for each matrix of a batch:
//
//   score[i][j]  = f32(sum_e (q[i][e] - zp_q) * (k[j][e] - zp_k)) * scale + mask[i][j]
//   weight[i][j] = round_half_even(exp(score[i][j] - max_j score[i]) * 255)
//   r[i][c]      = f32(sum_j weight[i][j] * (v[j][c] - zp_v)) * (s_v / f32(sum_j weight[i][j]))
//
// Both sums over integers are exact, every other step is one f32 operation (exp of
// post_ops_constants.h). `scale` holds s_q * s_k. The weights of a row are 8-bit integers whose step
// comes from the row itself, and their sum normalizes the result: no qparams of them are needed.
// A query that sees no key gives 0, one with a NaN or +inf among its scores NaN.
//
// Scores and weights of a few queries at a time stay in the cache of a core. Torch-free.
#pragma once

#include <cstdint>

#include "engines/matmul.h"
#include "kernels/elementwise.h"

namespace tae {

struct AttentionProblem {
  int64_t batch = 0, queries = 0, keys = 0, width = 0, value_width = 0;  // keys and width may be 0
  MatmulOperand q, k, v;  // [queries][width], [keys][width], [keys][value_width]; column_stride 1
  float scale = 1.f;
  const float* mask = nullptr;           // null: none
  const int64_t* mask_offset = nullptr;  // [batch]
  int64_t mask_row_stride = 0;           // 0: the same for all queries
  bool causal = false;                   // query i sees keys up to i
  kernels::Finish finish;
  void* output = nullptr;  // [batch][queries][value_width], contiguous
};

// Thread-safe. Throws std::bad_alloc only.
using AttentionRun = void (*)(const AttentionProblem& p);
Result<AttentionRun> find_attention_native(const AttentionProblem& p);
Result<AttentionRun> find_attention_reference(const AttentionProblem& p);

}  // namespace tae
