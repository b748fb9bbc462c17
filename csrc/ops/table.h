// Tables of 256 results: what an elementwise op gives for each 8-bit value.
#pragma once

#include <array>

#include "kernels/lookup.h"
#include "ops/elementwise_common.h"

namespace tae {

using ByteTable = std::array<uint8_t, 256>;

// requantize's result for every byte; `out` is of 8 bits.
ByteTable requantize_table(const kernels::Operand& operand, const OutputFinish& out);

// Whether the table is a copy of its index.
bool is_identity(const ByteTable& table);

// Whether the table is min(max(value, lo), hi) of the dtype's values, and the bounds.
bool is_clamp(const ByteTable& table, DType dtype, int32_t* lo, int32_t* hi);

}  // namespace tae
