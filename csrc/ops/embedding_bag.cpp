// y[b] = reduce over bag b of row(indices[i]), with row(r) = scale[r] * code[r] + bias[r]
//
//   sum   sum_i w_i * row_i; w is per_sample_weights or 1
//   mean  sum_i row_i / number of indices
//   max   max_i row_i, element by element
//
// As torch.nn.functional.embedding_bag: indices [B, L] are B bags of L, indices [n] are
// cut by offsets; an index equal to padding_idx is not there; an empty bag gives zeros.
// A pruned row (mapping -1) is a row of zeros. Sums are f32 in the order of the indices
// (kernels/embedding.h has the exact rule), bags of more than 512 in runs of 512.
#include <vector>

#include "core/autograd.h"
#include "core/cpu_features.h"
#include "engines/native/embedding.h"
#include "ops/embedding_common.h"

namespace tae {
namespace {

using at::Tensor;
using native::BagMode;

BagMode check_mode(const char* op, std::string_view mode) {
  if (mode == "sum") return BagMode::sum;
  if (mode == "mean") return BagMode::mean;
  TAE_CHECK_VALUE(mode == "max", (Arg{op, "mode"}), "be 'sum', 'mean' or 'max'", c10::str("'", mode, "'"));
  return BagMode::max;
}

template <typename T>
void copy_offsets(const Arg& arg, const Tensor& given, int64_t count, std::vector<int64_t>& offsets) {
  const T* from = span_of<T>(arg, given).first(count);
  for (int64_t i = 0; i < count; ++i) offsets[i] = from[i];
}

// Begin of each bag and, last, the end: a checked copy that nobody else can change.
std::vector<int64_t> check_offsets(const char* op, const Tensor& indices,
                                   const std::optional<Tensor>& offsets, bool include_last) {
  const Arg arg{op, "offsets"};
  if (indices.dim() == 2) {
    TAE_CHECK_VALUE(!offsets.has_value(), arg, "be None when indices have 2 dimensions", "a tensor");
    std::vector<int64_t> result = make_vector<int64_t>({op, "indices"}, indices.size(0) + 1);
    for (size_t b = 0; b < result.size(); ++b) result[b] = static_cast<int64_t>(b) * indices.size(1);
    return result;
  }
  TAE_CHECK_VALUE(indices.dim() == 1, (Arg{op, "indices"}), "have 1 or 2 dimensions",
                  c10::str("sizes ", indices.sizes()));
  TAE_CHECK_VALUE(offsets.has_value(), arg, "be given when indices have 1 dimension", "None");
  check_tensor(arg, *offsets, kIndexDtypes);
  check_rank(arg, *offsets, 1);
  const int64_t given = offsets->numel();
  TAE_CHECK_VALUE(!include_last || given > 0, arg, "have at least 1 element when include_last_offset is True",
                  "sizes [0]");
  const int64_t end = indices.numel();
  const Tensor plain = dense(arg, *offsets);
  std::vector<int64_t> result = make_vector<int64_t>(arg, include_last ? given : given + 1);
  if (given > 0 && plain.scalar_type() == at::kLong) copy_offsets<int64_t>(arg, plain, given, result);
  if (given > 0 && plain.scalar_type() == at::kInt) copy_offsets<int32_t>(arg, plain, given, result);
  if (!include_last) result[given] = end;
  for (int64_t i = 0; i < given; ++i) {
    const int64_t least = i == 0 ? 0 : result[i - 1];
    const int64_t most = i == 0 ? 0 : end;
    TAE_CHECK_INDEX(result[i] >= least && result[i] <= most, arg,
                    c10::str("begin with 0, ascend and not exceed the number of indices (", end, ")"),
                    c10::str(result[i], " at position ", i));
  }
  return result;
}

// f32 weights of the samples; `copy` holds them when they came as bfloat16.
const float* check_sample_weights(const char* op, const Tensor& weights, const Tensor& indices, BagMode mode,
                                  Tensor& owner, std::vector<float>& copy) {
  const Arg arg{op, "per_sample_weights"};
  check_tensor(arg, weights, kEmbeddingDtypes);
  TAE_CHECK_VALUE(mode == BagMode::sum, arg, "be None unless mode is 'sum'", "a tensor");
  check_same_sizes(arg, weights, indices.sizes(), "indices");
  owner = dense(arg, weights);
  const int64_t count = owner.numel();
  if (count == 0) return nullptr;
  if (owner.scalar_type() == at::kFloat) return span_of<float>(arg, owner).first(count);
  const uint16_t* halves = reinterpret_cast<const uint16_t*>(span_of<c10::BFloat16>(arg, owner).first(count));
  copy.resize(count);
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t word = static_cast<uint32_t>(halves[i]) << 16;
    std::memcpy(&copy[i], &word, sizeof word);
  }
  return copy.data();
}

// As in torch, a negative padding_idx counts from the end of the table (or of the map).
int64_t check_padding(const char* op, std::optional<int64_t> padding_idx, int64_t rows) {
  if (!padding_idx.has_value()) return -1;
  TAE_CHECK_VALUE(*padding_idx >= -rows && *padding_idx < rows, (Arg{op, "padding_idx"}),
                  c10::str("be in [", -rows, ", ", rows - 1, "]"), *padding_idx);
  return *padding_idx < 0 ? *padding_idx + rows : *padding_idx;
}

Tensor embedding_bag(const Tensor& weight, const Tensor& indices, const std::optional<Tensor>& offsets,
                     int64_t bits, std::optional<int64_t> embedding_dim, std::string_view mode,
                     const std::optional<Tensor>& per_sample_weights, bool include_last_offset,
                     std::optional<int64_t> padding_idx, const std::optional<Tensor>& mapping,
                     std::optional<at::ScalarType> output_dtype) {
  const char* op = "embedding_bag";
  const CheckedTable t = check_table(op, weight, bits, embedding_dim);
  const CheckedIndices i = check_indices(op, indices, mapping);
  native::BagProblem p;
  p.table = t.table;
  p.indices = i.indices;
  p.mode = check_mode(op, mode);
  const std::vector<int64_t> bags = check_offsets(op, indices, offsets, include_last_offset);
  p.offsets = bags.data();
  p.bags = static_cast<int64_t>(bags.size()) - 1;
  p.indices.padding =
      check_padding(op, padding_idx, mapping.has_value() ? p.indices.mapping_size : p.table.count);
  Tensor weights_owner;
  std::vector<float> weights_copy;
  if (per_sample_weights.has_value())
    p.weights = check_sample_weights(op, *per_sample_weights, indices, p.mode, weights_owner, weights_copy);
  const at::ScalarType dtype = output_dtype.value_or(at::kFloat);
  check_dtype({op, "output_dtype"}, dtype, kEmbeddingDtypes);
  const int64_t sizes[] = {p.bags, p.table.dim};
  check_numel({op, "offsets"}, sizes, c10::elementSize(dtype));
  Tensor output = empty_output({op, "offsets"}, sizes, dtype);
  if (p.bags == 0) return output;

  p.output_dtype = dtype_of(dtype);
  p.output = output_bytes(output).begin();
  const int64_t bad = native::run_bags(kernels::embedding_kernels(best_isa()), p);
  if (bad >= 0) raise_bad_index(op, p.table, p.indices, bad);
  return output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "embedding_bag(Tensor weight, Tensor indices, Tensor? offsets=None, int bits=8, "
      "int? embedding_dim=None, str mode='sum', Tensor? per_sample_weights=None, "
      "bool include_last_offset=False, int? padding_idx=None, Tensor? mapping=None, "
      "ScalarType? output_dtype=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("embedding_bag", TORCH_FN(embedding_bag));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("embedding_bag", TORCH_FN((InferenceOnly<"embedding_bag", embedding_bag>::call)));
}

}  // namespace tae
