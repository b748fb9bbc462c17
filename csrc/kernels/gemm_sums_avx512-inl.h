// The sums of a register tile on AVX512 and what becomes of them: int32 in memory, floats or
// bytes. Included by gemm__avx512vnni.cpp.
#pragma once

#include <immintrin.h>

#include "kernels/gemm_block.h"
#include "kernels/gemm_bytes_avx512-inl.h"
#include "kernels/gemm_rows_avx512-inl.h"

namespace tae::kernels {
namespace {

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
