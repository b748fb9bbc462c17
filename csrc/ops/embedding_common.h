// What embedding, embedding_bag and their prepack ops share: checks of the table and of
// the positions in it.
#pragma once

#include "core/checks.h"
#include "kernels/embedding.h"

namespace tae {

constexpr std::initializer_list<at::ScalarType> kIndexDtypes = {at::kInt, at::kLong};
constexpr std::initializer_list<at::ScalarType> kEmbeddingDtypes = {at::kFloat, at::kBFloat16};

int check_bits(const char* op, int64_t bits);

// A table [rows, row bytes] in torch's fused format; `owner` keeps its memory.
struct CheckedTable {
  kernels::EmbeddingTable table;
  at::Tensor owner;
};
CheckedTable check_table(const char* op, const at::Tensor& weight, int64_t bits,
                         std::optional<int64_t> embedding_dim);

// Indices of any shape, the pruning map beside them.
struct CheckedIndices {
  kernels::EmbeddingIndices indices;
  at::Tensor owner, mapping_owner;
};
CheckedIndices check_indices(const char* op, const at::Tensor& indices,
                             const std::optional<at::Tensor>& mapping);

// Raises IndexError for the position that a kernel refused.
[[noreturn]] void raise_bad_index(const char* op, const kernels::EmbeddingTable& table,
                                  const kernels::EmbeddingIndices& indices, int64_t position);

// Asks the kernel for huge pages under a large table: a random row then costs no page
// walk beside its cache lines. `now` also moves what is there already. Never fails.
void advise_huge_pages(const void* data, int64_t bytes, bool now);

}  // namespace tae
