// Counts and sizes in whole blocks. Torch-free.
#pragma once

#include <cstdint>

namespace tae {

// How many blocks of `size` hold `value` >= 0.
constexpr int64_t ceil_div(int64_t value, int64_t size) { return (value + size - 1) / size; }

// The least multiple of `size` that is at least `value` >= 0.
constexpr int64_t round_up(int64_t value, int64_t size) { return ceil_div(value, size) * size; }

}  // namespace tae
