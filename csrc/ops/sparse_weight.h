// Block-sparse weights as operators take them: checks of shapes and of every index.
#pragma once

#include <cstdint>
#include <vector>

#include "core/checks.h"
#include "engines/linear.h"

namespace tae {

// Where the blocks of a sparse weight lie (block compressed rows, as torch.sparse_bsr).
struct SparseIndex {
  const at::Tensor& row_offsets;     // [ceil(N / block rows) + 1] int32
  const at::Tensor& column_indices;  // [blocks] int16 or int32
  int64_t n;
  int64_t k;
};

// Own copies: the tensors may change behind the call.
struct SparseWeight {
  BlockSparse blocks;  // points into the vectors below
  std::vector<int8_t> values;
  std::vector<int32_t> offsets;
  std::vector<int32_t> columns;
  std::vector<int8_t> dense;  // [n][k], for engines that know no blocks
};

// Dtypes and lengths; `values` is a checked int8 tensor.
void check_sparse_shapes(const char* op, const at::Tensor& values, const SparseIndex& index);

// Every index and every element past the weight's edge, after check_sparse_shapes.
SparseWeight check_sparse_weight(const char* op, const at::Tensor& values, const SparseIndex& index);

}  // namespace tae
