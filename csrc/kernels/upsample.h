// Bilinear images of twice the size, in integers. Single-threaded and torch-free.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "core/dtype.h"

namespace tae::kernels {

// Of two neighbouring lines of [width][channels] 8-bit values, those between them of twice the
// width: `upper` is 3/4 above + 1/4 below, `lower` 1/4 above + 3/4 below, either may be null. Along
// a line the same, the first and the last value by themselves:
//   y = zero_point + round_half_even((9, 3, 3 and 1 times the values - zero_point) / 16)
using DoubleLines = void (*)(const void* above, const void* below, int64_t width, int64_t channels,
                             DType dtype, int32_t zero_point, void* upper, void* lower);

// Null below avx512.
DoubleLines double_lines(Isa isa);

}  // namespace tae::kernels
