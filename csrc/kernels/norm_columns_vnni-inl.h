// Sums of columns of bytes by VPDPBUSD: a lane takes 4 rows of one column in a step.
#pragma once

#include <immintrin.h>

#include "kernels/norm-inl.h"

namespace tae::kernels {
namespace {

// Rows after which lanes of u * (u - 128), at most 255 * 127 a row, are folded; rows that a
// block of columns takes at once; and columns whose lanes stay in L1.
constexpr int64_t kFoldRows = 65536, kStepRows = 16, kBlockColumns = 1024;

// Of one column: sums of u and of u * (u - 128), in lane order.
struct ColumnLanes {
  int32_t sum[kBlockColumns];
  int32_t product[kBlockColumns];
};

// 4 rows of 64 columns as 16 words of 4 bytes, in lane order.
TAE_VEC void interleave_rows(const VBytes (&u)[4], VBytes (&q)[4]) {
  const __m512i low01 = _mm512_unpacklo_epi8(u[0], u[1]), high01 = _mm512_unpackhi_epi8(u[0], u[1]);
  const __m512i low23 = _mm512_unpacklo_epi8(u[2], u[3]), high23 = _mm512_unpackhi_epi8(u[2], u[3]);
  q[0] = _mm512_unpacklo_epi16(low01, low23);
  q[1] = _mm512_unpackhi_epi16(low01, low23);
  q[2] = _mm512_unpacklo_epi16(high01, high23);
  q[3] = _mm512_unpackhi_epi16(high01, high23);
}

// Up to kStepRows rows of n <= 64 columns; rows that are not there are 0.
template <typename Count>
TAE_VEC void add_rows(const uint8_t* src, VBytes flip, int64_t rows, int64_t stride, Count n, int32_t* sum,
                      int32_t* product) {
  const __m512i ones = _mm512_set1_epi8(1), sign = _mm512_set1_epi8(-128);
  __m512i s[4], p[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    s[j] = _mm512_loadu_si512(sum + j * kLanes);
    p[j] = _mm512_loadu_si512(product + j * kLanes);
  }
  for (int64_t r = 0; r < rows; r += 4) {
    VBytes u[4], q[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      u[i] = _mm512_setzero_si512();
      if (r + i >= rows) continue;
      const uint8_t* row = src + (r + i) * stride;
      u[i] = xor_bytes(load_group_bytes(row, n), flip);
    }
    interleave_rows(u, q);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      s[j] = _mm512_dpbusd_epi32(s[j], q[j], ones);
      p[j] = _mm512_dpbusd_epi32(p[j], q[j], xor_bytes(q[j], sign));
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    _mm512_storeu_si512(sum + j * kLanes, s[j]);
    _mm512_storeu_si512(product + j * kLanes, p[j]);
  }
}

void fold_lanes(const ColumnLanes& lanes, int64_t channels, ByteSums* sums) {
  for (int64_t c = 0; c < channels; ++c) {
    const int64_t e = c % kGroup, at = c - e + e / 4 % 4 * kLanes + e / 16 * 4 + e % 4;
    sums[c].sum += lanes.sum[at];
    sums[c].squares += lanes.product[at] + int64_t{kSquareShift} * lanes.sum[at];
  }
}

[[gnu::noinline]] void column_sums_vnni(const void* source, DType dtype, int64_t rows, int64_t stride,
                                        int64_t channels, ByteSums* sums) noexcept {
  const VBytes flip = set1_8(shift_of(dtype));
  ColumnLanes lanes;
  for (int64_t c = 0; c < channels; c += kBlockColumns) {
    const int64_t count = channels - c < kBlockColumns ? channels - c : kBlockColumns;
    const uint8_t* src = static_cast<const uint8_t*>(source) + c;
    for (int64_t first = 0; first < rows; first += kFoldRows) {
      const int64_t last = first + kFoldRows < rows ? first + kFoldRows : rows;
      std::memset(&lanes, 0, sizeof lanes);
      for (int64_t r = first; r < last; r += kStepRows) {
        const int64_t step = last - r < kStepRows ? last - r : kStepRows;
        for_elements(count, [&](int64_t at, auto n) {
          add_rows(src + r * stride + at, flip, step, stride, n, lanes.sum + at, lanes.product + at);
        });
      }
      fold_lanes(lanes, count, sums + c);
    }
  }
}

}  // namespace
}  // namespace tae::kernels
