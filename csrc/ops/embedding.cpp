// y[i] = scale[r] * code[r] + bias[r] with r = indices[i], or mapping[indices[i]]
//
// weight is a table of fused rows [N, bytes] (kernels/embedding.h), torch's own
// row-wise format. indices have any shape; the output is [*indices, D], contiguous.
// A pruned row (mapping -1) reads as zeros. f32, rounded once; a bfloat16 output again.
#include "engines/native/embedding.h"

#include "core/autograd.h"
#include "core/cpu_features.h"
#include "ops/embedding_common.h"

namespace tae {
namespace {

using at::Tensor;

Tensor embedding(const Tensor& weight, const Tensor& indices, int64_t bits,
                 std::optional<int64_t> embedding_dim, const std::optional<Tensor>& mapping,
                 std::optional<at::ScalarType> output_dtype) {
  const char* op = "embedding";
  const CheckedTable t = check_table(op, weight, bits, embedding_dim);
  const CheckedIndices i = check_indices(op, indices, mapping);
  const at::ScalarType dtype = output_dtype.value_or(at::kFloat);
  check_dtype({op, "output_dtype"}, dtype, kEmbeddingDtypes);
  c10::SmallVector<int64_t, 6> sizes(indices.sizes().begin(), indices.sizes().end());
  sizes.push_back(t.table.dim);
  check_numel({op, "indices"}, sizes, c10::elementSize(dtype));
  Tensor output = empty_output({op, "indices"}, sizes, dtype);
  if (indices.numel() == 0) return output;

  native::LookupProblem p;
  p.table = t.table;
  p.indices = i.indices;
  p.count = indices.numel();
  p.output_dtype = dtype_of(dtype);
  p.output = output_bytes(output).begin();
  const int64_t bad = native::run_lookup(kernels::embedding_kernels(best_isa()), p);
  if (bad >= 0) raise_bad_index(op, p.table, p.indices, bad);
  return output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "embedding(Tensor weight, Tensor indices, int bits=8, int? embedding_dim=None, Tensor? mapping=None, "
      "ScalarType? output_dtype=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) { m.impl("embedding", TORCH_FN(embedding)); }

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("embedding", TORCH_FN((InferenceOnly<"embedding", embedding>::call)));
}

}  // namespace tae
