// Statistics of byte sums in f64, shared by the kernels of every level.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/norm.h"

namespace tae::kernels {
namespace {

inline int32_t shift_of(DType d) { return d == DType::qs8 ? 128 : 0; }

struct ByteStats {
  double mean;  // of q - zero_point, in steps
  double k;     // 1 / sqrt(var + eps)
};

// __int128 is exact: count * squares and sum * sum have up to 2^110.
inline ByteStats byte_stats(const ByteSums& s, int64_t count, int32_t u8_zero_point, float scale, double eps,
                            bool centred) {
  const double n = static_cast<double>(count), step = static_cast<double>(scale);
  const int64_t total = s.sum - count * u8_zero_point;
  double square;  // mean square in steps, around the mean or around 0
  if (centred) {
    const __int128 spread = static_cast<__int128>(count) * s.squares - static_cast<__int128>(s.sum) * s.sum;
    square = static_cast<double>(spread) / (n * n);
  } else {
    const int64_t z = u8_zero_point;
    square = static_cast<double>(s.squares - 2 * z * s.sum + count * z * z) / n;
  }
  return {static_cast<double>(total) / n, 1. / std::sqrt(square * (step * step) + eps)};
}

}  // namespace
}  // namespace tae::kernels
