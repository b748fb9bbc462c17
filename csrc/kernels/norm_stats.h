// Statistics of byte sums in f64, shared by the kernels of every level.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/norm.h"

namespace tae::kernels {
namespace {

inline int32_t shift_of(DType d) { return d == DType::qs8 ? 128 : 0; }

// Rows up to here have count * squares and sum * sum inside int64.
constexpr int64_t kShortRow = int64_t{1} << 22;

// count * squares - sum * sum; __int128 is exact: both have up to 2^110.
inline double byte_spread(const ByteSums& s, int64_t count) {
  if (count <= kShortRow) return static_cast<double>(count * s.squares - s.sum * s.sum);
  return static_cast<double>(static_cast<__int128>(count) * s.squares - static_cast<__int128>(s.sum) * s.sum);
}

// Of kStatRows rows of `count` values each, together: roots and divisions of several rows are one vector's.
constexpr int64_t kStatRows = 8;
struct RowStats {
  double mean[kStatRows];  // of q - zero_point, in steps
  double root[kStatRows];  // sqrt(var + eps); infinite where var is 0, so that the result is the bias exactly
};

inline void row_stats(const ByteSums (&sums)[kStatRows], int64_t count, int32_t u8_zero_point, float scale,
                      double eps, bool centred, RowStats* stats) {
  const double n = static_cast<double>(count), step = static_cast<double>(scale);
  const int64_t z = u8_zero_point;
  double total[kStatRows], square[kStatRows];  // the mean square in steps, around the mean or around 0
  for (int r = 0; r < kStatRows; ++r) {
    const ByteSums& s = sums[r];
    total[r] = static_cast<double>(s.sum - count * z);
    square[r] =
        centred ? byte_spread(s, count) : static_cast<double>(s.squares - 2 * z * s.sum + count * z * z);
  }
  const double part = 1. / n, unit = step * step * (centred ? part * part : part);
  for (int r = 0; r < kStatRows; ++r) {
    const double root = std::sqrt(square[r] * unit + eps);
    stats->root[r] = square[r] == 0. && eps > 0. ? std::numeric_limits<double>::infinity() : root;
  }
  for (int r = 0; r < kStatRows; ++r) stats->mean[r] = total[r] * part;
}

}  // namespace
}  // namespace tae::kernels
