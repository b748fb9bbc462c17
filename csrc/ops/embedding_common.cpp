#include "ops/embedding_common.h"

#include "core/huge_pages.h"

namespace tae {

int check_bits(const char* op, int64_t bits) {
  TAE_CHECK_VALUE(bits == 8 || bits == 4 || bits == 2, (Arg{op, "bits"}), "be 8, 4 or 2", bits);
  return static_cast<int>(bits);
}

CheckedTable check_table(const char* op, const at::Tensor& weight, int64_t bits,
                         std::optional<int64_t> embedding_dim) {
  const Arg arg{op, "weight"};
  check_tensor(arg, weight, {at::kByte});
  check_rank(arg, weight, 2);
  CheckedTable result;
  result.table.bits = check_bits(op, bits);
  const int64_t tail = kernels::embedding_tail_bytes(result.table.bits);
  const int64_t in_byte = 8 / bits;
  const int64_t bytes = weight.size(1);
  TAE_CHECK_VALUE(bytes >= tail && bytes <= INT64_MAX / 8, arg,
                  c10::str("have size(1) of at least ", tail, " bytes (scale and bias of a row)"), bytes);
  const int64_t capacity = (bytes - tail) * in_byte;
  result.table.dim = embedding_dim.value_or(capacity);
  TAE_CHECK_VALUE(
      result.table.dim > capacity - in_byte && result.table.dim <= capacity && result.table.dim >= 0,
      (Arg{op, "embedding_dim"}),
      c10::str("fill the ", bytes - tail, " bytes of codes in a row of weight (",
               std::max<int64_t>(0, capacity - in_byte + 1), " to ", capacity, ")"),
      result.table.dim);
  const RowView view = rows_of(arg, weight);
  result.owner = view.owner;
  static constexpr uint8_t kNothing = 0;  // prefetches count from the address of an empty table, too
  result.table.rows = view.data != nullptr ? static_cast<const uint8_t*>(view.data) : &kNothing;
  result.table.stride = view.stride;
  result.table.count = view.rows;
  return result;
}

CheckedIndices check_indices(const char* op, const at::Tensor& indices,
                             const std::optional<at::Tensor>& mapping) {
  const Arg arg{op, "indices"};
  check_tensor(arg, indices, kIndexDtypes);
  CheckedIndices result;
  result.owner = dense(arg, indices);
  result.indices.wide = indices.scalar_type() == at::kLong;
  result.indices.data = bytes_of(arg, result.owner).begin();
  if (mapping.has_value()) {
    const Arg map{op, "mapping"};
    check_tensor(map, *mapping, {at::kInt});
    check_rank(map, *mapping, 1);
    result.mapping_owner = dense(map, *mapping);
    const Span<const int32_t> entries = span_of<int32_t>(map, result.mapping_owner);
    static constexpr int32_t kNothing = -1;  // an empty map is not "no map"
    result.indices.mapping = entries.size() > 0 ? entries.begin() : &kNothing;
    result.indices.mapping_size = entries.size();
  }
  return result;
}

void raise_bad_index(const char* op, const kernels::EmbeddingTable& table,
                     const kernels::EmbeddingIndices& indices, int64_t position) {
  const int64_t index = indices.wide ? static_cast<const int64_t*>(indices.data)[position]
                                     : static_cast<const int32_t*>(indices.data)[position];
  const int64_t limit = indices.mapping != nullptr ? indices.mapping_size : table.count;
  TAE_CHECK_INDEX(index >= 0 && index < limit, (Arg{op, "indices"}),
                  c10::str("hold numbers in [0, ", limit, ")"), c10::str(index, " at position ", position));
  TAE_CHECK_INDEX(indices.mapping == nullptr, (Arg{op, "mapping"}),
                  c10::str("hold -1 or rows of weight in [0, ", table.count, ")"),
                  c10::str(indices.mapping[index], " at position ", index));
  TAE_CHECK_INDEX(false, (Arg{op, "indices"}), "stay unchanged during the call",
                  c10::str("another value at position ", position));
}

void advise_huge_pages(const void* data, int64_t bytes, bool now) {
  constexpr int64_t kLeast = 8 << 20;  // below, the TLB reaches it with small pages
  if (bytes < kLeast) return;
  with_huge_pages(data, static_cast<size_t>(bytes), [&](void* first, size_t length) {
    madvise(first, length, MADV_HUGEPAGE);
    constexpr int kCollapse = 25;  // MADV_COLLAPSE, Linux 6.1; older kernels refuse it
    if (now) madvise(first, length, kCollapse);
  });
}

}  // namespace tae
