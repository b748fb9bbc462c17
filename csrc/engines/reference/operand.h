// How the reference engine reads an operand of a product of two activations.
#pragma once

#include "engines/matmul.h"

namespace tae::reference {

// Element (row, column) of one matrix of the batch, without its zero point.
inline int64_t centred(const MatmulOperand& o, int64_t matrix, int64_t row, int64_t column) {
  const uint8_t value = o.data[o.offset[matrix] + row * o.row_stride + column * o.column_stride];
  return (o.dtype == DType::qs8 ? static_cast<int8_t>(value) : int32_t{value}) - o.zero_point;
}

}  // namespace tae::reference
