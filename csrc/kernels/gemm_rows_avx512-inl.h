// The rows of a register tile on AVX512, of 64 columns or fewer. Included by gemm__avx512vnni.cpp.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace tae::kernels {
namespace {

// One row of the register tile. Named members, not an array: GCC 12 would keep
// an array in memory because it unrolls loops after it has split aggregates.
struct Row {
  __m512i c0, c1, c2, c3;
};

inline __attribute__((always_inline)) Row load(const void* p) {
  const __m512i* v = static_cast<const __m512i*>(p);
  return {_mm512_loadu_si512(v), _mm512_loadu_si512(v + 1), _mm512_loadu_si512(v + 2),
          _mm512_loadu_si512(v + 3)};
}

// 6 rows by 64 columns; of fewer columns, a Row is 2 rows of 32 or 4 of 16 (kDeep below).
struct Tile {
  Row r0, r1, r2, r3, r4, r5;
};

// Calls body(row) from the first Row on.
template <int kRows, typename Body>
inline __attribute__((always_inline)) void for_rows(Tile& t, const Body& body) {
  body(t.r0);
  if constexpr (kRows > 1) body(t.r1);
  if constexpr (kRows > 2) body(t.r2);
  if constexpr (kRows > 3) body(t.r3);
  if constexpr (kRows > 4) body(t.r4);
  if constexpr (kRows > 5) body(t.r5);
}

// Which row of a Row one of its vectors belongs to, and from which column on.
template <int kDeep, __m512i Row::* kColumn>
struct Place {
  static constexpr int kIndex = kColumn == &Row::c0   ? 0
                                : kColumn == &Row::c1 ? 1
                                : kColumn == &Row::c2 ? 2
                                                      : 3;
  static constexpr int64_t kRow = kIndex * kDeep / 4;
  static constexpr int64_t kFirst = kIndex % (4 / kDeep) * 16;
};

}  // namespace
}  // namespace tae::kernels
