// Register tiles over a block of a GEMM without tile registers: what the ISA files share.
// Included by them, so everything has internal linkage.
#pragma once

#include "kernels/gemm_block.h"

namespace tae::kernels {
namespace {

// The rows of a tile, as GemmBlock has them.
struct TileRows {
  const uint8_t* a;
  int64_t a_stride;
  int64_t quads;
  int64_t lines;
  int64_t line_stride;
};

// Rows times lines * 4 * quads values of k of the columns at b, to c.
using TileFn = void (*)(TileRows rows, const int8_t* b, int32_t* c, int64_t c_stride, bool accumulate);

// tiles[r] computes r rows by kColumns columns; tiles[kRows] is the whole tile.
template <int64_t kColumns, size_t kEntries>
inline void block_of_tiles(const GemmBlock& g, const TileFn (&tiles)[kEntries]) {
  constexpr int64_t kRows = kEntries - 1;
  for (int64_t j = 0; j < kPanelColumns; j += kColumns)
    for (int64_t r = 0; r < g.rows; r += kRows) {
      const int64_t rows = g.rows - r < kRows ? g.rows - r : kRows;
      tiles[rows]({g.a + r * g.a_stride, g.a_stride, g.quads, g.lines, g.line_stride}, g.b + 4 * j,
                  g.c + r * g.c_stride + j, g.c_stride, g.accumulate);
    }
}

// The tile of ISAs without a product of u8 and s8 that cannot saturate (VPMADDUBSW does
// at 255 * 127 * 2): bytes are widened to 16 bits and multiplied with VPMADDWD, exact.
// Weights and input are split into even and odd k alike, which takes shifts only and
// keeps one column per 32-bit lane. Row is a row of accumulators, or of weights, with
//   zeros(), load(p), even_bytes(), odd_bytes()        Row
//   add_products(a, even, odd)    += 4 values of k at a times the widened weights
//   store(c, accumulate)
template <typename Row, int kRows>
void widening_tile(TileRows rows, const int8_t* b, int32_t* c, int64_t c_stride, bool accumulate) {
  Row r0 = Row::zeros(), r1 = r0, r2 = r0, r3 = r0;
  const int64_t a_stride = rows.a_stride;
  for (int64_t line = 0; line < rows.lines; ++line) {
    const uint8_t* a = rows.a + line * rows.line_stride;
    for (int64_t q = 0; q < rows.quads; ++q) {
      const Row w = Row::load(b);
      const Row even = w.even_bytes(), odd = w.odd_bytes();
      r0.add_products(a, even, odd);
      if constexpr (kRows > 1) r1.add_products(a + a_stride, even, odd);
      if constexpr (kRows > 2) r2.add_products(a + 2 * a_stride, even, odd);
      if constexpr (kRows > 3) r3.add_products(a + 3 * a_stride, even, odd);
      a += 4;
      b += kQuadBytes;
    }
  }
  r0.store(c, accumulate);
  if constexpr (kRows > 1) r1.store(c + c_stride, accumulate);
  if constexpr (kRows > 2) r2.store(c + 2 * c_stride, accumulate);
  if constexpr (kRows > 3) r3.store(c + 3 * c_stride, accumulate);
}

inline __attribute__((always_inline)) int32_t load_quad(const uint8_t* a) {
  int32_t word;
  __builtin_memcpy(&word, a, 4);
  return word;
}

}  // namespace
}  // namespace tae::kernels
