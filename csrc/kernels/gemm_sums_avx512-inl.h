// The sums of a register tile on AVX512 and what becomes of them: int32 in memory, floats or
// bytes. Included by gemm__avx512vnni.cpp.
#pragma once

#include <immintrin.h>

#include "kernels/byte_rule_avx512-inl.h"
#include "kernels/gemm_block.h"

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

// Column parameters of 16 columns, as FloatFinish has them.
struct Columns {
  __m512i sum;
  __m512 scale;
  __m512 bias;
  bool has_bias;
  __mmask16 mask;
};

inline __attribute__((always_inline)) Columns load_columns(const FloatFinish& f, int64_t first) {
  const int64_t left = f.cols - first;
  Columns c;
  c.mask = left >= 16 ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
  c.sum = _mm512_loadu_si512(f.column_sum + first);
  c.scale = f.weight_scale_stride == 0 ? _mm512_set1_ps(f.weight_scale[0])
                                       : _mm512_maskz_loadu_ps(c.mask, f.weight_scale + first);
  c.has_bias = f.bias != nullptr;
  c.bias = c.has_bias ? _mm512_maskz_loadu_ps(c.mask, f.bias + first) : _mm512_setzero_ps();
  return c;
}

// 16 columns of one row; the order of operations is engines/linear.h's.
inline __attribute__((always_inline)) void finish(const FloatFinish& f, const Columns& c, __m512i acc,
                                                  int64_t r, int64_t first) {
  const RowParams& row = f.row[r * f.row_step];
  const __m512i offset = _mm512_mullo_epi32(_mm512_set1_epi32(row.zero_point), c.sum);
  __m512 x = _mm512_cvtepi32_ps(_mm512_sub_epi32(acc, offset));
  x = _mm512_mul_ps(x, _mm512_mul_ps(_mm512_set1_ps(row.scale), c.scale));
  if (c.has_bias) x = _mm512_add_ps(x, c.bias);
  float* out = f.out + r * f.out_stride + first;
  if (c.mask == 0xffff) {
    _mm512_storeu_ps(out, x);
  } else {
    _mm512_mask_storeu_ps(out, c.mask, x);
  }
}

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

template <int kRows, int kDeep, __m512i Row::* kColumn>
inline __attribute__((always_inline)) void finish_columns(const FloatFinish& f, Tile& t, int64_t r) {
  using At = Place<kDeep, kColumn>;
  const Columns c = load_columns(f, At::kFirst);
  r += At::kRow;
  for_rows<kRows>(t, [&](const Row& row) __attribute__((always_inline)) {
    finish(f, c, row.*kColumn, r, At::kFirst);
    r += kDeep;
  });
}

template <int kRows, int kDeep>
inline __attribute__((always_inline)) void finish_tile(const FloatFinish& f, Tile& t, int64_t r) {
  finish_columns<kRows, kDeep, &Row::c0>(f, t, r);
  finish_columns<kRows, kDeep, &Row::c1>(f, t, r);
  finish_columns<kRows, kDeep, &Row::c2>(f, t, r);
  finish_columns<kRows, kDeep, &Row::c3>(f, t, r);
}

enum class Addend { none, u8, s8 };

// 16 values of the addend, 0 where the mask has none; kWhole: it has all.
template <Addend kAddend, bool kWhole = false>
inline __attribute__((always_inline)) __m512 load_addend(const ByteAddend& a, const uint8_t* p,
                                                         __mmask16 mask) {
  const __m128i bytes =
      kWhole ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)) : _mm_maskz_loadu_epi8(mask, p);
  const __m512i q = kAddend == Addend::s8 ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes);
  const __m512i from_zero = _mm512_sub_epi32(q, _mm512_set1_epi32(a.zero_point));
  return _mm512_mul_ps(_mm512_cvtepi32_ps(from_zero), _mm512_set1_ps(a.scale));
}

// From sums, which began with f.start, to integers.
template <int kRows, int kDeep, Addend kAddend, __m512i Row::* kColumn>
inline __attribute__((always_inline)) void round_columns(const ByteFinish& f, Tile& t, int64_t r) {
  using At = Place<kDeep, kColumn>;
  const __m512 scale = _mm512_loadu_ps(f.scale + At::kFirst), bias = _mm512_loadu_ps(f.bias + At::kFirst);
  [[maybe_unused]] const uint8_t* addend =
      kAddend == Addend::none ? nullptr : f.addend.data + (r + At::kRow) * f.addend.stride + At::kFirst;
  [[maybe_unused]] const __mmask16 mask = static_cast<__mmask16>(first_bytes(f.cols) >> At::kFirst);
  for_rows<kRows>(t, [&](Row& row) __attribute__((always_inline)) {
    __m512 x = real_value(row.*kColumn, scale, bias);
    if constexpr (kAddend != Addend::none) {
      x = _mm512_add_ps(x, load_addend<kAddend>(f.addend, addend, mask));
      addend += kDeep * f.addend.stride;
    }
    row.*kColumn = quotient(x, f.rule.inverse);
  });
}

template <int kRows, int kDeep, Addend kAddend>
inline __attribute__((always_inline)) void round_tile(const ByteFinish& f, Tile& t, int64_t r) {
  round_columns<kRows, kDeep, kAddend, &Row::c0>(f, t, r);
  round_columns<kRows, kDeep, kAddend, &Row::c1>(f, t, r);
  round_columns<kRows, kDeep, kAddend, &Row::c2>(f, t, r);
  round_columns<kRows, kDeep, kAddend, &Row::c3>(f, t, r);
}

// Rows of few columns that follow one another in memory are one piece: where its groups of 4
// bytes are before byte_rule_avx512-inl.h's transposition, for 4, 8 .. 32 columns.
struct DenseOrder {
  int32_t of[8][16];
};

constexpr DenseOrder dense_order() {
  DenseOrder order{};
  for (int groups = 1; groups <= 8; ++groups)
    for (int i = 0; i < 16; ++i) {
      const int deep = groups <= 4 ? 4 : 2, row = i / groups;
      const int from = row < deep ? row * (16 / deep) + i % groups : 0;
      order.of[groups - 1][i] = from % 4 * 4 + from / 4;
    }
  return order;
}
alignas(64) constexpr DenseOrder kDenseOrder = dense_order();

// The bytes of a Row of 2 or 4 rows.
template <int kDeep>
inline __attribute__((always_inline)) void store_rows(const ByteFinish& f, uint8_t* out, const Row& row) {
  const int64_t stride = f.out_stride;
  if (stride == f.cols && stride % 4 == 0) {
    const __m512i order = _mm512_load_si512(kDenseOrder.of[stride / 4 - 1]);
    store_bytes(out, bytes_of(row.c0, row.c1, row.c2, row.c3, f.rule, order), kDeep * stride);
    return;
  }
  const __m512i bytes = bytes_of(row.c0, row.c1, row.c2, row.c3, f.rule, transposition());
  if constexpr (kDeep == 2) {
    const __mmask32 mask = static_cast<__mmask32>(first_bytes(f.cols));
    _mm256_mask_storeu_epi8(out, mask, _mm512_castsi512_si256(bytes));
    _mm256_mask_storeu_epi8(out + stride, mask, _mm512_extracti64x4_epi64(bytes, 1));
  } else {
    const __mmask16 mask = static_cast<__mmask16>(first_bytes(f.cols));
    _mm_mask_storeu_epi8(out, mask, _mm512_castsi512_si128(bytes));
    _mm_mask_storeu_epi8(out + stride, mask, _mm512_extracti32x4_epi32(bytes, 1));
    _mm_mask_storeu_epi8(out + 2 * stride, mask, _mm512_extracti32x4_epi32(bytes, 2));
    _mm_mask_storeu_epi8(out + 3 * stride, mask, _mm512_extracti32x4_epi32(bytes, 3));
  }
}

// 16 columns of a row of 64.
template <Addend kAddend, bool kWhole, __m512i Row::* kColumn>
inline __attribute__((always_inline)) __m512i round_sums(const ByteFinish& f, const Row& row,
                                                         const uint8_t* addend) {
  constexpr int64_t kFirst = Place<1, kColumn>::kFirst;
  __m512 x = real_value(row.*kColumn, _mm512_loadu_ps(f.scale + kFirst), _mm512_loadu_ps(f.bias + kFirst));
  if constexpr (kAddend != Addend::none) {
    const __mmask16 mask = kWhole ? 0 : static_cast<__mmask16>(first_bytes(f.cols) >> kFirst);
    x = _mm512_add_ps(x, load_addend<kAddend, kWhole>(f.addend, addend + kFirst, mask));
  }
  return quotient(x, f.rule.inverse);
}

// Rows of 64 columns, one after the other: the constants of the columns are read for each, since there
// are no registers for them beside the sums of the rows that wait.
template <int kRows, Addend kAddend, bool kWhole>
inline __attribute__((always_inline)) void finish_wide(const ByteFinish& f, Tile& t, int64_t r) {
  uint8_t* out = f.out + r * f.out_stride;
  const uint8_t* addend = kAddend == Addend::none ? nullptr : f.addend.data + r * f.addend.stride;
  for_rows<kRows>(t, [&](const Row& row) __attribute__((always_inline)) {
    const __m512i bytes =
        bytes_of(round_sums<kAddend, kWhole, &Row::c0>(f, row, addend),
                 round_sums<kAddend, kWhole, &Row::c1>(f, row, addend),
                 round_sums<kAddend, kWhole, &Row::c2>(f, row, addend),
                 round_sums<kAddend, kWhole, &Row::c3>(f, row, addend), f.rule, transposition());
    if constexpr (kWhole)
      _mm512_storeu_si512(out, bytes);
    else
      store_bytes(out, bytes, f.cols);
    out += f.out_stride;
    if constexpr (kAddend != Addend::none) addend += f.addend.stride;
    __asm__ volatile("" ::: "memory");
  });
}

// Rows of few columns: their constants are few.
template <int kRows, int kDeep, Addend kAddend>
inline __attribute__((always_inline)) void finish_narrow(const ByteFinish& f, Tile& t, int64_t r) {
  round_tile<kRows, kDeep, kAddend>(f, t, r);
  uint8_t* out = f.out + r * f.out_stride;
  for_rows<kRows>(t, [&](const Row& row) __attribute__((always_inline)) {
    store_rows<kDeep>(f, out, row);
    out += kDeep * f.out_stride;
  });
}

template <int kRows, int kDeep, Addend kAddend>
inline __attribute__((always_inline)) void finish_with(const ByteFinish& f, Tile& t, int64_t r) {
  if constexpr (kDeep > 1)
    finish_narrow<kRows, kDeep, kAddend>(f, t, r);
  else if (f.cols >= kPanelColumns)
    finish_wide<kRows, kAddend, true>(f, t, r);
  else
    finish_wide<kRows, kAddend, false>(f, t, r);
}

template <int kRows, int kDeep>
inline __attribute__((always_inline)) void finish_bytes(const ByteFinish& f, Tile& t, int64_t r) {
  if (f.addend.data == nullptr)
    finish_with<kRows, kDeep, Addend::none>(f, t, r);
  else if (f.addend.is_signed)
    finish_with<kRows, kDeep, Addend::s8>(f, t, r);
  else
    finish_with<kRows, kDeep, Addend::u8>(f, t, r);
}

// Sums of earlier ranges of k.
template <int kRows, int kDeep, __m512i Row::* kColumn>
inline __attribute__((always_inline)) void add_sums(Tile& t, const int32_t* c, int64_t stride) {
  using At = Place<kDeep, kColumn>;
  c += At::kRow * stride + At::kFirst;
  for_rows<kRows>(t, [&](Row& row) __attribute__((always_inline)) {
    row.*kColumn = _mm512_add_epi32(row.*kColumn, _mm512_loadu_si512(c));
    c += kDeep * stride;
  });
}

template <int kRows, int kDeep, __m512i Row::* kColumn>
inline __attribute__((always_inline)) void store_sums(Tile& t, int32_t* c, int64_t stride) {
  using At = Place<kDeep, kColumn>;
  c += At::kRow * stride + At::kFirst;
  for_rows<kRows>(t, [&](const Row& row) __attribute__((always_inline)) {
    _mm512_storeu_si512(c, row.*kColumn);
    c += kDeep * stride;
  });
}

// What the sums begin with, where they become bytes at the end.
template <int kDeep>
inline __attribute__((always_inline)) Row first_sums(const GemmBlock& g) {
  const __m512i zero = _mm512_setzero_si512();
  if (g.finish_bytes == nullptr) return {zero, zero, zero, zero};
  const int32_t* const start = g.finish_bytes->start;
  return {_mm512_loadu_si512(start + Place<kDeep, &Row::c0>::kFirst),
          _mm512_loadu_si512(start + Place<kDeep, &Row::c1>::kFirst),
          _mm512_loadu_si512(start + Place<kDeep, &Row::c2>::kFirst),
          _mm512_loadu_si512(start + Place<kDeep, &Row::c3>::kFirst)};
}

// What becomes of the sums of rows r and on.
template <int kRows, int kDeep>
inline __attribute__((always_inline)) void leave(const GemmBlock& g, Tile& t, int64_t r) {
  int32_t* const c = g.c + r * g.c_stride;
  if (g.accumulate) {
    add_sums<kRows, kDeep, &Row::c0>(t, c, g.c_stride);
    add_sums<kRows, kDeep, &Row::c1>(t, c, g.c_stride);
    add_sums<kRows, kDeep, &Row::c2>(t, c, g.c_stride);
    add_sums<kRows, kDeep, &Row::c3>(t, c, g.c_stride);
  }
  if (g.finish != nullptr) return finish_tile<kRows, kDeep>(*g.finish, t, r);
  if (g.finish_bytes != nullptr) return finish_bytes<kRows, kDeep>(*g.finish_bytes, t, r);
  store_sums<kRows, kDeep, &Row::c0>(t, c, g.c_stride);
  store_sums<kRows, kDeep, &Row::c1>(t, c, g.c_stride);
  store_sums<kRows, kDeep, &Row::c2>(t, c, g.c_stride);
  store_sums<kRows, kDeep, &Row::c3>(t, c, g.c_stride);
}

}  // namespace
}  // namespace tae::kernels
