// GEMM with VPDPBUSD on 512-bit registers. 6 rows by 64 columns: 24 of the 32
// registers accumulate, 4 hold weights, and a step of 4 k costs 10 loads for 24
// multiply-adds, so the two multiply ports stay busy. Where at most 32 columns
// or 16 count, 2 or 4 rows lie one behind the other in the place of one.

// GCC 12 takes the undefined pass-through operands of avx512fintrin.h for variables
// that we forgot to set (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>

#include <algorithm>

#include "kernels/gemm_block.h"
#include "kernels/gemm_products_avx512-inl.h"
#include "kernels/gemm_sums_avx512-inl.h"
#include "kernels/gemm_waiting_avx512-inl.h"

namespace tae::kernels {
namespace {

// Rows r .. r + kRows of the block.
template <int kRows>
void tile(const GemmBlock& g, int64_t r, Lines weights, Lines input) {
  const Row first = first_sums<1>(g);
  Tile t = {first, first, first, first, first, first};
  Operands<false> o = operands<1, false>(g, r);
  multiply_steps<kRows, 1, true>(t, o, g.a_stride, weights.count, weights.data);
  multiply_steps<kRows, 1, true>(t, o, g.a_stride, input.count, input.data);
  multiply_steps<kRows, 1, false>(t, o, g.a_stride, g.quads - weights.count - input.count, nullptr);
  for (int64_t line = 1; line < g.lines; ++line) {
    next_line(g, o);
    multiply_steps<kRows, 1, false>(t, o, g.a_stride, g.quads, nullptr);
  }
  leave<kRows, 1>(g, t, r);
}

// Rows r .. r + kRows * kDeep of a block of few columns.
template <int kRows, int kDeep>
void narrow_tile(const GemmBlock& g, int64_t r) {
  const Row first = first_sums<kDeep>(g);
  Tile t = {first, first, first, first, first, first};
  Operands<true> o = operands<kDeep, true>(g, r);
  for (int64_t line = 0; line < g.lines; ++line) {
    multiply_steps<kRows, kDeep, false>(t, o, g.a_stride, g.quads, nullptr);
    next_line(g, o);
  }
  leave<kRows, kDeep>(g, t, r);
}

using TileFn = void (*)(const GemmBlock& g, int64_t r, Lines weights, Lines input);
constexpr int64_t kTileRows = 6;
// Sums that become bytes keep the products of the next tile waiting: of few k in tiles of fewer rows.
constexpr int64_t kByteTileRows = 4, kFewQuads = 128;
constexpr TileFn kTiles[kTileRows + 1] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};
using NarrowTileFn = void (*)(const GemmBlock& g, int64_t r);
// 4 Rows: with more, the sums and the constants of the output do not fit the registers.
constexpr int64_t kNarrowRows = 4;
template <int kDeep>
constexpr NarrowTileFn kNarrowTiles[kNarrowRows + 1] = {nullptr, narrow_tile<1, kDeep>, narrow_tile<2, kDeep>,
                                                        narrow_tile<3, kDeep>, narrow_tile<4, kDeep>};

// Does those rows of a block that gemm_waiting_avx512-inl.h is for and returns how many: with an addend that
// lies as the output does, as far as they fill its tiles.
template <int kDeep>
int64_t waiting_rows(const GemmBlock& g) {
  const ByteFinish* const f = g.finish_bytes;
  if (f == nullptr || f->addend.data == nullptr || g.accumulate || g.quads > kFewQuads) return 0;
  constexpr int64_t kRows = kWaitingRows * kDeep;
  constexpr bool kFlat = kDeep > 1;
  const bool fits =
      kFlat ? f->out_stride == f->cols && kRows * f->cols % kPanelColumns == 0 : f->cols == kPanelColumns;
  const int64_t tiles = g.rows / kRows;
  if (!fits || f->addend.stride != f->out_stride || tiles < 2) return 0;
  if (f->addend.is_signed)
    waiting_tiles<kDeep, kFlat, Addend::s8>(g, tiles);
  else
    waiting_tiles<kDeep, kFlat, Addend::u8>(g, tiles);
  return tiles * kRows;
}

template <int kDeep>
void narrow_block(const GemmBlock& g) {
  const int64_t done = waiting_rows<kDeep>(g) / kDeep;
  const int64_t rows = g.rows / kDeep - done, tiles = (rows + kNarrowRows - 1) / kNarrowRows;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t r = done + rows * i / tiles, end = done + rows * (i + 1) / tiles;
    fetch_rows(g, kDeep * r, kDeep * end);
    kNarrowTiles<kDeep>[end - r](g, kDeep * r);
  }
  if (g.rows % kDeep != 0) kTiles[g.rows % kDeep](g, kDeep * (done + rows), {}, {});
}

// Tiles of equal height, one row more or less: 32 rows as 6 6 5 5 5 5, because a
// tile of 2 rows would wait for its own multiply-adds.
void block(const GemmBlock& g) {
  if (g.columns <= 16) return narrow_block<4>(g);
  if (g.columns <= 32) return narrow_block<2>(g);
  const int64_t done = waiting_rows<1>(g), rows = g.rows - done;
  if (rows == 0) return;
  const int64_t height = g.finish_bytes != nullptr && g.quads <= kFewQuads ? kByteTileRows : kTileRows;
  const int64_t tiles = (rows + height - 1) / height;
  const int64_t lines = done > 0 ? 0 : lines_of(g.next_bytes, tiles, g.quads);
  const int64_t input_lines = done > 0 ? 0 : lines_of(g.input_bytes, tiles, g.quads - lines);
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t r = done + rows * i / tiles;
    const int64_t end = done + rows * (i + 1) / tiles;
    fetch_rows(g, r, end);
    kTiles[end - r](g, r, {g.next + i * lines * 64, lines}, {g.input + i * input_lines * 64, input_lines});
  }
}

// One row reads every weight once: as fast as the memory below. Two sets of
// accumulators hide the latency of the multiply-add.
void gemv(const GemvRange& g) {
  constexpr int64_t kAhead = 4096;  // bytes between a load and its prefetch
  for (int64_t p = 0; p < g.panels; ++p) {
    const int8_t* b = g.b + p * g.panel_bytes;
    __m512i acc[2][4];
    for (auto& set : acc)
      for (__m512i& v : set) v = _mm512_setzero_si512();
    int64_t q = 0;
    for (; q + 2 <= g.quads; q += 2) {
      for (int s = 0; s < 2; ++s) {
        const __m512i x = broadcast(g.a + 4 * (q + s));
        const int8_t* w = b + (q + s) * kQuadBytes;
        for (int j = 0; j < 4; ++j) {
          _mm_prefetch(reinterpret_cast<const char*>(w + 64 * j + kAhead), _MM_HINT_T0);
          acc[s][j] = _mm512_dpbusd_epi32(acc[s][j], x, _mm512_load_si512(w + 64 * j));
        }
      }
    }
    if (q < g.quads) {
      const __m512i x = broadcast(g.a + 4 * q);
      for (int j = 0; j < 4; ++j)
        acc[0][j] = _mm512_dpbusd_epi32(acc[0][j], x, _mm512_load_si512(b + q * kQuadBytes + 64 * j));
    }
    for (int j = 0; j < 4; ++j)
      _mm512_storeu_si512(g.c + p * kPanelColumns + 16 * j, _mm512_add_epi32(acc[0][j], acc[1][j]));
  }
}

}  // namespace

extern const GemmKernels kGemmAvx512Vnni;
const GemmKernels kGemmAvx512Vnni = {.name = "6x64",
                                     .row_multiple = 1,
                                     .quad_multiple = 1,
                                     .row_unit = 6,
                                     .row_block = 12,
                                     .k_block = 1024,
                                     .finishes = true,
                                     .fetches_input = true,
                                     .takes_lines = true,
                                     .block = block,
                                     .gemv = gemv};

}  // namespace tae::kernels
