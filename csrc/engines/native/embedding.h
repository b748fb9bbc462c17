// Lookups and bags over threads. Work is cut by indices, not by bags: a bag of more
// than kRun indices is summed in runs of kRun, whose sums are added in order. The cuts
// depend on the offsets only, so the result does not depend on the number of threads.
#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "kernels/embedding.h"

namespace tae::native {

enum class BagMode : uint8_t { sum, mean, max };

constexpr int64_t kRun = 512;  // indices summed in one go

struct BagProblem {
  kernels::EmbeddingTable table;
  kernels::EmbeddingIndices indices;
  const int64_t* offsets = nullptr;  // bags + 1, ascending from 0; the caller's own copy
  int64_t bags = 0;
  const float* weights = nullptr;  // one for each index, or null
  BagMode mode = BagMode::sum;
  DType output_dtype = DType::f32;  // or bf16
  void* output = nullptr;           // [bags][dim]
};

// Every index is checked before it is used. Returns the position of the first bad one
// (the output is then of no use), or -1. An empty bag gives zeros; mean divides by the
// number of indices that are not padding.
int64_t run_bags(const kernels::EmbeddingKernels& k, const BagProblem& p);

struct LookupProblem {
  kernels::EmbeddingTable table;
  kernels::EmbeddingIndices indices;
  int64_t count = 0;
  DType output_dtype = DType::f32;  // or bf16
  void* output = nullptr;           // [count][dim]
};
int64_t run_lookup(const kernels::EmbeddingKernels& k, const LookupProblem& p);

}  // namespace tae::native
