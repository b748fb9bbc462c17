#include "ops/sparse_weight.h"

#include <algorithm>
#include <limits>

namespace tae {
namespace {

std::vector<int32_t> integers(const Arg& arg, const at::Tensor& t) {
  const at::Tensor plain = dense(arg, t);
  std::vector<int32_t> values(static_cast<size_t>(plain.numel()));
  if (t.scalar_type() == at::kInt) {
    const Span<const int32_t> span = span_of<int32_t>(arg, plain);
    std::copy(span.begin(), span.end(), values.begin());
  } else {
    const Span<const int16_t> span = span_of<int16_t>(arg, plain);
    std::copy(span.begin(), span.end(), values.begin());
  }
  return values;
}

void check_offsets(const Arg& arg, const std::vector<int32_t>& offsets, int64_t blocks) {
  TAE_CHECK_VALUE(offsets.front() == 0, arg, "begin with 0", offsets.front());
  for (size_t i = 1; i < offsets.size(); ++i)
    TAE_CHECK_VALUE(offsets[i] >= offsets[i - 1], arg, "never fall",
                    c10::str(offsets[i - 1], " before ", offsets[i], " at position ", i));
  TAE_CHECK_VALUE(offsets.back() == blocks, arg, c10::str("end with the number of blocks (", blocks, ")"),
                  offsets.back());
}

void check_columns(const Arg& arg, const SparseWeight& w, int64_t most) {
  for (size_t row = 0; row + 1 < w.offsets.size(); ++row) {
    int32_t last = -1;
    for (int32_t i = w.offsets[row]; i < w.offsets[row + 1]; ++i) {
      const int32_t column = w.columns[static_cast<size_t>(i)];
      TAE_CHECK_INDEX(column >= 0 && column < most, arg, c10::str("be in [0, ", most - 1, "]"),
                      c10::str(column, " at position ", i));
      TAE_CHECK_VALUE(column > last, arg, "rise inside a row of blocks",
                      c10::str(last, " before ", column, " at position ", i));
      last = column;
    }
  }
}

}  // namespace

void check_sparse_shapes(const char* op, const at::Tensor& values, const SparseIndex& index) {
  const Arg size{op, "weight_size"};
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  TAE_CHECK_VALUE(index.n >= 0 && index.k >= 0 && index.n <= most && index.k <= most, size,
                  "be two sizes >= 0 below 2^31", c10::str("[", index.n, ", ", index.k, "]"));
  const Arg weight{op, "weight"};
  check_rank(weight, values, 3);
  const int64_t rows = values.sizes()[1], columns = values.sizes()[2];
  TAE_CHECK_VALUE((rows == 1 && columns == 4) || (rows == 8 && columns == 1), weight,
                  "have blocks of sizes [1, 4] or [8, 1]", c10::str("[", rows, ", ", columns, "]"));
  const Arg offsets{op, "row_offsets"};
  check_tensor(offsets, index.row_offsets, {at::kInt});
  check_rank(offsets, index.row_offsets, 1);
  check_size(offsets, index.row_offsets, 0, (index.n + rows - 1) / rows + 1, "rows of blocks + 1");
  const Arg indices{op, "column_indices"};
  check_tensor(indices, index.column_indices, {at::kShort, at::kInt});
  check_rank(indices, index.column_indices, 1);
  check_size(indices, index.column_indices, 0, values.sizes()[0], "weight.size(0)");
  TAE_CHECK_VALUE(values.sizes()[0] <= most, weight, "have fewer than 2^31 blocks", values.sizes()[0]);
}

SparseWeight check_sparse_weight(const char* op, const at::Tensor& values, const SparseIndex& index) {
  SparseWeight w;
  w.offsets = integers({op, "row_offsets"}, index.row_offsets);
  w.columns = integers({op, "column_indices"}, index.column_indices);
  const Arg weight{op, "weight"};
  const at::Tensor plain = dense(weight, values);
  const Span<const int8_t> span = span_of<int8_t>(weight, plain);
  w.values.assign(span.begin(), span.end());

  BlockSparse& b = w.blocks;
  b.block_rows = values.sizes()[1];
  b.block_columns = values.sizes()[2];
  b.blocks = values.sizes()[0];
  check_offsets({op, "row_offsets"}, w.offsets, b.blocks);
  check_columns({op, "column_indices"}, w, (index.k + b.block_columns - 1) / b.block_columns);

  w.dense = make_vector<int8_t>({op, "weight_size"}, index.n * index.k);  // both below 2^31
  for (size_t row = 0; row + 1 < w.offsets.size(); ++row) {
    for (int64_t i = w.offsets[row]; i < w.offsets[row + 1]; ++i) {
      for (int64_t j = 0; j < b.block_rows * b.block_columns; ++j) {
        const int64_t n = static_cast<int64_t>(row) * b.block_rows + j / b.block_columns;
        const int64_t k = w.columns[static_cast<size_t>(i)] * b.block_columns + j % b.block_columns;
        const int8_t value = w.values[static_cast<size_t>(i * b.block_rows * b.block_columns + j)];
        if (n < index.n && k < index.k) {
          w.dense[static_cast<size_t>(n * index.k + k)] = value;
        } else {
          TAE_CHECK_VALUE(value == 0, weight, "be 0 past the edge of weight_size",
                          c10::str(static_cast<int>(value), " in block ", i));
        }
      }
    }
  }
  b.values = w.values.data();
  b.offsets = w.offsets.data();
  b.columns = w.columns.data();
  return w;  // moving vectors keeps their data where it is
}

}  // namespace tae
