// What attention needs around its two products: rows of scores to rows of weights, and sums of
// weighted values to the output. Single-threaded and torch-free; engines/attention.h has the rule.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "kernels/elementwise.h"

namespace tae::kernels {

// One query's sums over the width, as GEMM leaves them, and what the zero points take off them.
struct ScoreRow {
  const int32_t* raw = nullptr;          // [count]
  const int32_t* column_term = nullptr;  // [count]
  int32_t row_term = 0;
  float scale = 1.f;
  const float* mask = nullptr;  // [count] or null
  int64_t count = 0;            // keys that the query sees
  float* scratch = nullptr;     // [count]
};

// Sums of weighted values, r = f32(raw[c] - zero_point * weights) * (scale / f32(weights)): 0 where
// weights are 0, NaN where they are -1.
struct ValueRow {
  const int32_t* raw = nullptr;  // [count]
  int32_t weights = 0;           // the sum of the row's weights
  int32_t zero_point = 0;        // of the values in the s8 domain
  float scale = 1.f;
  int64_t count = 0;
};

struct AttentionKernels {
  // Writes the weights and zeros up to `room` >= count bytes. Returns their sum: 0 for a row that sees
  // no key, -1 for one with a NaN or +inf.
  int32_t (*weights)(const ScoreRow& row, uint8_t* dst, int64_t room);
  void (*values)(const Finish& finish, const ValueRow& row, void* dst);
};

// The table of the best level <= isa that has one (portable, avx2, avx512).
const AttentionKernels& attention_kernels(Isa isa);

}  // namespace tae::kernels
