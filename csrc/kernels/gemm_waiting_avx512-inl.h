// Tiles whose sums wait in L1 and become bytes among the products of the next tile: two kinds of work
// for different ports of the CPU, which it would not find in time by itself. Included by
// gemm__avx512vnni.cpp.
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "kernels/gemm_products_avx512-inl.h"

namespace tae::kernels {
namespace {

constexpr int kWaitingRows = 4;  // Rows of a tile
constexpr int64_t kTileSums = 64 * kWaitingRows;

// Where the next 64 sums are and go to. kFlat: rows of fewer columns, without gaps from one to the next.
template <bool kFlat>
struct Piece {
  const int32_t* sums;
  const float* scale;
  const float* bias;
  uint8_t* out;
  const uint8_t* addend;
};

template <bool kFlat>
TAE_INLINE void advance(Piece<kFlat>& p, int64_t stride) {
  p.sums += 64;
  if constexpr (kFlat) {
    p.scale += 64;
    p.bias += 64;
  }
  p.out += kFlat ? 64 : stride;
  p.addend += kFlat ? 64 : stride;
}

// 16 of them, the kIndex-th.
template <int kIndex, Addend kAddend, bool kFlat>
TAE_INLINE __m512i round_16(const ByteFinish& f, const Piece<kFlat>& p) {
  constexpr int64_t kFirst = 16 * kIndex;
  __m512 x = real_value(_mm512_load_si512(p.sums + kFirst), _mm512_loadu_ps(p.scale + kFirst),
                        _mm512_loadu_ps(p.bias + kFirst));
  x = _mm512_add_ps(x, load_addend<kAddend, true>(f.addend, p.addend + kFirst, 0));
  return quotient(x, f.rule.inverse);
}

template <bool kFlat>
TAE_INLINE void leave_piece(const ByteFinish& f, Piece<kFlat>& p, const Row& x) {
  _mm512_storeu_si512(p.out, bytes_of(x.c0, x.c1, x.c2, x.c3, f.rule, transposition()));
  advance(p, f.out_stride);
}

template <Addend kAddend, bool kFlat>
TAE_INLINE void round_piece(const ByteFinish& f, Piece<kFlat>& p) {
  const Row x = {round_16<0, kAddend>(f, p), round_16<1, kAddend>(f, p), round_16<2, kAddend>(f, p),
                 round_16<3, kAddend>(f, p)};
  leave_piece(f, p, x);
}

// Columns behind the last are overwritten by the next row.
template <int kDeep, __m512i Row::* kColumn>
TAE_INLINE void keep_column(const Row& row, int32_t* to, int64_t columns) {
  using At = Place<kDeep, kColumn>;
  _mm512_storeu_si512(to + At::kRow * columns + At::kFirst, row.*kColumn);
}

// 24 columns of 2 rows as 3 vectors: stores across cache lines would take longer, and loads wait for them.
TAE_INLINE void keep_24(const Row& row, int32_t* to) {
  _mm512_store_si512(to, row.c0);
  _mm512_store_si512(to + 16, _mm512_inserti64x4(row.c1, _mm512_castsi512_si256(row.c2), 1));
  _mm512_store_si512(to + 32, _mm512_shuffle_i64x2(row.c2, row.c3, 0x4e));
}

template <int kDeep>
TAE_INLINE void keep_tile(Tile& t, int32_t* to, int64_t columns) {
  if (kDeep == 2 && columns == 24) {
    for_rows<kWaitingRows>(t, [&](const Row& row) __attribute__((always_inline)) {
      keep_24(row, to);
      to += kDeep * 24;
    });
    return;
  }
  for_rows<kWaitingRows>(t, [&](const Row& row) __attribute__((always_inline)) {
    keep_column<kDeep, &Row::c0>(row, to, columns);
    keep_column<kDeep, &Row::c1>(row, to, columns);
    keep_column<kDeep, &Row::c2>(row, to, columns);
    keep_column<kDeep, &Row::c3>(row, to, columns);
    to += kDeep * columns;
  });
}

// The constants of `columns` columns, for rows without gaps.
TAE_INLINE void repeat(const float* from, int64_t columns, int64_t rows, float* to) {
  for (int64_t i = 0; i < rows; ++i, to += columns)
    for (int64_t j = 0; j < columns; j += 16) _mm512_storeu_ps(to + j, _mm512_loadu_ps(from + j));
}

// What the tiles of a block share.
struct Waiting {
  const float* scale;  // [64], or of all sums of a tile, as the next
  const float* bias;
  int64_t pieces;                     // of 64 sums a tile
  int64_t weight_lines, input_lines;  // that each tile fetches
};

// Where the sums of rows r and on, which are at `sums`, go.
template <bool kFlat>
TAE_INLINE Piece<kFlat> first_piece(const ByteFinish& f, const Waiting& w, int64_t r, const int32_t* sums) {
  return {sums, w.scale, w.bias, f.out + r * f.out_stride, f.addend.data + r * f.addend.stride};
}

// kSteps steps of 4 k, and a piece becomes bytes among them.
template <int kSteps, int kDeep, Addend kAddend, bool kFlat>
TAE_INLINE void multiply_and_round(const ByteFinish& f, Tile& t, Operands<true>& o, int64_t a_stride,
                                   Piece<kFlat>& p) {
  Row x;
  multiply_step<kWaitingRows, kDeep>(t, o, a_stride);
  x.c0 = round_16<0, kAddend>(f, p);
  if constexpr (kSteps == 4) multiply_step<kWaitingRows, kDeep>(t, o, a_stride);
  x.c1 = round_16<1, kAddend>(f, p);
  if constexpr (kSteps > 1) multiply_step<kWaitingRows, kDeep>(t, o, a_stride);
  x.c2 = round_16<2, kAddend>(f, p);
  if constexpr (kSteps == 4) multiply_step<kWaitingRows, kDeep>(t, o, a_stride);
  x.c3 = round_16<3, kAddend>(f, p);
  leave_piece(f, p, x);
}

// The sums of the i-th tile, to `keep`; `pieces` of the tile before, which are at `sums`, become bytes.
template <int kDeep, bool kFlat, Addend kAddend>
[[gnu::noinline]] void waiting_tile(const GemmBlock& g, const Waiting& w, int64_t i, int64_t pieces,
                                    const int32_t* sums, int32_t* keep) {
  constexpr int kRows = kWaitingRows;
  const int64_t stride = g.a_stride, r = i * kRows * kDeep;
  const Row first = first_sums<kDeep>(g);
  Tile t = {first, first, first, first, first, first};
  Operands<true> o = operands<kDeep, true>(g, r);
  for (int64_t line = 1; line < g.lines; ++line) {
    multiply_steps<kRows, kDeep, false>(t, o, stride, g.quads, nullptr);
    next_line(g, o);
  }
  int64_t steps = g.quads - 4 * pieces;
  if (steps > 0) {
    multiply_steps<kRows, kDeep, true>(t, o, stride, w.weight_lines, g.next + i * w.weight_lines * 64);
    multiply_steps<kRows, kDeep, true>(t, o, stride, w.input_lines, g.input + i * w.input_lines * 64);
    multiply_steps<kRows, kDeep, false>(t, o, stride, steps - w.weight_lines - w.input_lines, nullptr);
  }
  // GCC would load what follows before the products and keep it in vector registers, where it waits for them.
  __asm__ volatile("" ::: "memory");
  const ByteFinish& f = *g.finish_bytes;
  Piece<kFlat> p = first_piece<kFlat>(f, w, (i > 0 ? i - 1 : 0) * kRows * kDeep, sums);
  if (steps >= 0) {
    for (; pieces > 0; --pieces) multiply_and_round<4, kDeep, kAddend>(f, t, o, stride, p);
  } else {
    for (steps = g.quads; steps >= 2 * pieces && pieces > 0; steps -= 2, --pieces)
      multiply_and_round<2, kDeep, kAddend>(f, t, o, stride, p);
    for (; steps > 0 && pieces > 0; --steps, --pieces)
      multiply_and_round<1, kDeep, kAddend>(f, t, o, stride, p);
    multiply_steps<kRows, kDeep, false>(t, o, stride, steps, nullptr);
    for (; pieces > 0; --pieces) round_piece<kAddend>(f, p);
  }
  keep_tile<kDeep>(t, keep, kFlat ? g.columns : 64);
}

// The first tiles * kWaitingRows * kDeep rows of a block.
template <int kDeep, bool kFlat, Addend kAddend>
void waiting_tiles(const GemmBlock& g, int64_t tiles) {
  constexpr int64_t kRows = kWaitingRows * kDeep;
  const ByteFinish& f = *g.finish_bytes;
  alignas(64) int32_t kept[2][kTileSums + 64];
  alignas(64) float constants[kFlat ? 2 : 1][kFlat ? kTileSums + 64 : 16];
  Waiting w = {f.scale, f.bias, kRows, 0, 0};
  if constexpr (kFlat) {
    repeat(f.scale, f.cols, kRows, constants[0]);
    repeat(f.bias, f.cols, kRows, constants[1]);
    w = {constants[0], constants[1], kRows * f.cols / 64, 0, 0};
  }
  // The steps that make no bytes fetch.
  const int64_t free_steps = std::max<int64_t>(0, g.quads - 4 * w.pieces);
  w.weight_lines = lines_of(g.next_bytes, tiles, free_steps);
  w.input_lines = lines_of(g.input_bytes, tiles, free_steps - w.weight_lines);
  for (int64_t i = 0; i < tiles; ++i) {
    fetch_rows(g, i * kRows, (i + 1) * kRows);
    waiting_tile<kDeep, kFlat, kAddend>(g, w, i, i == 0 ? 0 : w.pieces, kept[~i & 1], kept[i & 1]);
  }
  Piece<kFlat> p = first_piece<kFlat>(f, w, (tiles - 1) * kRows, kept[(tiles - 1) & 1]);
  for (int64_t i = 0; i < w.pieces; ++i) round_piece<kAddend>(f, p);
}

}  // namespace
}  // namespace tae::kernels
