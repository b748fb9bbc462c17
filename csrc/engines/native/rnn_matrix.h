// A packed weight matrix of a recurrent layer: columns in the order of the gate kernels.
#pragma once

#include <algorithm>
#include <vector>

#include "engines/rnn.h"
#include "kernels/gemm.h"
#include "kernels/rnn.h"

namespace tae {

// An item is `unit_block` units, `panels` whole panels.
struct RnnMatrix {
  RnnMatrix() = default;
  // weight [gates * units][k], a scale for each row.
  RnnMatrix(const int8_t* weight, const float* scale, int64_t units, int64_t gates, int64_t k);
  // A matrix of the same size with a plain row for each column of this one, so that its products
  // are laid out as this one's: item i is items [i * panels, (i + 1) * panels) there.
  RnnMatrix rows_in_order(const int8_t* weight, const float* scale) const;

  int64_t items() const { return unit_block == 0 ? 0 : (units + unit_block - 1) / unit_block; }
  int64_t item_columns() const { return panels * kernels::kPanelColumns; }
  int64_t columns() const { return items() * item_columns(); }
  size_t bytes() const { return packed.bytes() + 4 * (scale.size() + column_offset.size()); }
  // What a zero point of q(h) adds to each column. [columns]
  void fill_column_offset(int32_t zero_point, int32_t* offset) const;

  // Rows [gates * units][width] in column order, `fill` between.
  template <typename T>
  std::vector<T> in_column_order(const T* rows, int64_t width, T fill) const;

  int64_t units = 0;
  int64_t gates = 0;
  int64_t unit_block = 0;
  int64_t panels = 0;
  kernels::PackedWeight packed;
  std::vector<float> scale;            // [columns], 1 in the padding
  std::vector<int32_t> column_offset;  // [columns], for a zero point of 128
};

template <typename T>
std::vector<T> RnnMatrix::in_column_order(const T* rows, int64_t width, T fill) const {
  std::vector<T> result(columns() * width, fill);
  for (int64_t g = 0; g < gates; ++g)
    for (int64_t u = 0; u < units; ++u)
      std::copy_n(rows + (g * units + u) * width, width,
                  result.data() + kernels::gate_column(u, g, gates) * width);
  return result;
}

// What multiply_rnn reads besides the matrix.
struct RnnOperand {
  const uint8_t* a = nullptr;  // rows of q(h)
  int64_t a_stride = 0;
  int64_t rows = 0;
  int64_t item_begin = 0;
  int64_t item_end = 0;
  const int32_t* column_offset = nullptr;  // null: that of the matrix
};

constexpr int64_t kRnnRowsAtOnce = 48;      // rows of accumulators in L1
constexpr int64_t kRnnAccBytes = 16 << 10;  // of one tile

// Values that multiply_rnn's `acc` must hold for so many rows.
int64_t rnn_acc_size(int64_t rows, int64_t row_multiple);

// Accumulators of the operand's items, tile by tile, each handed to `fn`. `tile` is at row 0
// and item 0.
void multiply_rnn(const kernels::GemmKernels& gemm, const RnnMatrix& m, const RnnOperand& operand,
                  const kernels::GateTile& tile, kernels::RnnKernels::Fn fn, int32_t* acc);

}  // namespace tae
