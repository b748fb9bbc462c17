// Packing of a recurrent layer's matrix, and its product with the rows of one step.
#include "engines/native/rnn_matrix.h"

#include <algorithm>
#include <numeric>

namespace tae {

using kernels::GateTile;
using kernels::kPanelColumns;
using kernels::kUnits;

RnnMatrix::RnnMatrix(const int8_t* weight, const float* weight_scale, int64_t units_, int64_t gates_,
                     int64_t k)
    : units(units_), gates(gates_) {
  const int64_t columns_of_16 = kUnits * gates;
  panels = std::lcm(columns_of_16, kPanelColumns) / kPanelColumns;
  unit_block = kUnits * (panels * kPanelColumns / columns_of_16);
  packed = kernels::PackedWeight(in_column_order<int8_t>(weight, k, 0).data(), columns(), k);
  scale = in_column_order(weight_scale, 1, 1.f);
  column_offset.resize(columns());
  fill_column_offset(128, column_offset.data());
}

// The product fits, see engines/rnn.h.
void RnnMatrix::fill_column_offset(int32_t zero_point, int32_t* offset) const {
  const int32_t* sum = packed.column_sum();
  for (int64_t c = 0; c < columns(); ++c) offset[c] = zero_point * sum[c];
}

RnnMatrix RnnMatrix::rows_in_order(const int8_t* weight, const float* weight_scale) const {
  return RnnMatrix(in_column_order<int8_t>(weight, packed.k(), 0).data(),
                   in_column_order(weight_scale, 1, 1.f).data(), columns(), 1, packed.k());
}

int64_t rnn_acc_size(int64_t rows, int64_t row_multiple) {
  const int64_t most = (std::min(rows, kRnnRowsAtOnce) + row_multiple - 1) / row_multiple * row_multiple;
  return std::max<int64_t>(kRnnAccBytes / 4, most * 3 * kPanelColumns) + 16 * kPanelColumns * 3;
}

void multiply_rnn(const kernels::GemmKernels& gemm, const RnnMatrix& m, const RnnOperand& operand,
                  const GateTile& tile, kernels::RnnKernels::Fn fn, int32_t* acc) {
  const int64_t quads =
      ((m.packed.k() + 3) / 4 + gemm.quad_multiple - 1) / gemm.quad_multiple * gemm.quad_multiple;
  const int64_t columns = m.item_columns(), rows = operand.rows;
  const int64_t together = std::min(rows, kRnnRowsAtOnce);
  const int64_t group = std::max<int64_t>(1, kRnnAccBytes / (4 * columns * std::max<int64_t>(together, 1)));
  for (int64_t item = operand.item_begin; item < operand.item_end; item += group) {
    const int64_t items = std::min(group, operand.item_end - item);
    const int64_t unit = item * m.unit_block;
    const int64_t column = item * columns;
    for (int64_t r = 0; r < rows; r += together) {
      const int64_t count = std::min(together, rows - r);
      const int64_t stride = items * columns;
      const uint8_t* a = operand.a + r * operand.a_stride;
      if (count == 1 && gemm.gemv != nullptr) {
        gemm.gemv({.a = a,
                   .b = m.packed.panel(item * m.panels),
                   .panel_bytes = m.packed.panel_bytes(),
                   .quads = quads,
                   .panels = items * m.panels,
                   .c = acc});
      } else {
        for (int64_t p = 0; p < items * m.panels; ++p) {
          kernels::GemmBlock g;
          g.a = a;
          g.a_stride = operand.a_stride;
          g.b = m.packed.panel(item * m.panels + p);
          g.quads = quads;
          g.c = acc + p * kPanelColumns;
          g.c_stride = stride;
          g.rows = count;
          const int64_t next = item * m.panels + p + 1;
          if (next < operand.item_end * m.panels && r + together >= rows) {
            g.next = m.packed.panel(next);
            g.next_bytes = m.packed.panel_bytes();
          }
          gemm.block(g);
        }
      }
      GateTile t = tile;
      t.rows = count;
      t.units = std::min(items * m.unit_block, m.units - unit);
      t.acc = acc;
      t.acc_stride = stride;
      t.column_offset =
          (operand.column_offset == nullptr ? m.column_offset.data() : operand.column_offset) + column;
      t.weight_scale = m.scale.data() + column;
      t.row_scale = tile.row_scale + r;
      if (tile.bias != nullptr) t.bias = tile.bias + column;
      if (tile.x != nullptr) t.x = tile.x + r * tile.x_stride + column;
      if (tile.x_low != nullptr) t.x_low = tile.x_low + r * tile.x_low_stride + column;
      if (tile.r_low != nullptr) t.r_low = tile.r_low + r * tile.r_low_stride + column;
      if (tile.c != nullptr) t.c = tile.c + r * tile.state_stride + unit;
      t.h = tile.h + r * tile.state_stride + unit;
      if (tile.y != nullptr) t.y = tile.y + r * tile.y_stride + unit;
      fn(t);
    }
  }
}

}  // namespace tae
