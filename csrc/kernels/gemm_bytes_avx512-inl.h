// From the sums of a register tile on AVX512 to bytes. Included by gemm__avx512vnni.cpp.
#pragma once

#include <immintrin.h>

#include "kernels/byte_rule_avx512-inl.h"
#include "kernels/gemm_block.h"
#include "kernels/gemm_rows_avx512-inl.h"

namespace tae::kernels {
namespace {

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

}  // namespace
}  // namespace tae::kernels
