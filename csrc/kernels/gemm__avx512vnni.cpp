// GEMM with VPDPBUSD on 512-bit registers. 6 rows by 64 columns: 24 of the 32
// registers accumulate, 4 hold weights, and a step of 4 k costs 10 loads for 24
// multiply-adds, so the two multiply ports stay busy. Where at most 32 columns
// or 16 count, 2 or 4 rows lie one behind the other in the place of one.

// GCC 12 takes the undefined pass-through operands of avx512fintrin.h for variables
// that we forgot to set (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>

#include "kernels/gemm_block.h"
#include "kernels/gemm_sums_avx512-inl.h"

namespace tae::kernels {
namespace {

inline __attribute__((always_inline)) __m512i broadcast(const uint8_t* a) {
  int32_t word;
  __builtin_memcpy(&word, a, 4);
  return _mm512_set1_epi32(word);
}

inline __attribute__((always_inline)) void dot(__m512i& acc, __m512i x, __m512i w) {
  acc = _mm512_dpbusd_epi32(acc, x, w);
}

inline __attribute__((always_inline)) void multiply(Row& row, const uint8_t* a, const Row& w) {
  const __m512i x = broadcast(a);
  dot(row.c0, x, w.c0);
  dot(row.c1, x, w.c1);
  dot(row.c2, x, w.c2);
  dot(row.c3, x, w.c3);
}

// Cache lines to draw into L2, one in a step.
struct Lines {
  const int8_t* data;
  int64_t count;
};

// `steps` steps of 4 k; each also fetches a line at `next` if kFetch.
template <int kRows, bool kFetch>
inline __attribute__((always_inline)) void multiply_steps(Tile& t, const uint8_t*& a, int64_t a_stride,
                                                          const int8_t*& b, int64_t steps,
                                                          const int8_t* next) {
  for (int64_t q = 0; q < steps; ++q) {
    Row w = load(b);
    // Otherwise GCC 12 loads the weights again for every row of a low tile.
    if constexpr (kRows > 1) asm("" : "+v"(w.c0), "+v"(w.c1), "+v"(w.c2), "+v"(w.c3));
    if constexpr (kFetch) {
      fetch_to_l2(next);
      next += 64;
    }
    multiply(t.r0, a, w);
    if constexpr (kRows > 1) multiply(t.r1, a + a_stride, w);
    if constexpr (kRows > 2) multiply(t.r2, a + 2 * a_stride, w);
    if constexpr (kRows > 3) multiply(t.r3, a + 3 * a_stride, w);
    if constexpr (kRows > 4) multiply(t.r4, a + 4 * a_stride, w);
    if constexpr (kRows > 5) multiply(t.r5, a + 5 * a_stride, w);
    a += 4;
    b += kQuadBytes;
  }
}

// Rows r .. r + kRows of the block.
template <int kRows>
void tile(const GemmBlock& g, int64_t r, Lines weights, Lines input) {
  const Row first = first_sums<1>(g);
  Tile t = {first, first, first, first, first, first};
  const uint8_t* a = g.a + r * g.a_stride;
  const int8_t* b = g.b;
  multiply_steps<kRows, true>(t, a, g.a_stride, b, weights.count, weights.data);
  multiply_steps<kRows, true>(t, a, g.a_stride, b, input.count, input.data);
  multiply_steps<kRows, false>(t, a, g.a_stride, b, g.quads - weights.count - input.count, nullptr);
  for (int64_t line = 1; line < g.lines; ++line) {
    a += g.line_stride - 4 * g.quads;
    multiply_steps<kRows, false>(t, a, g.a_stride, b, g.quads, nullptr);
  }
  leave<kRows, 1>(g, t, r);
}

// 4 k of the rows of one Row, the first at `a`.
template <int kDeep>
inline __attribute__((always_inline)) void multiply_deep(Row& row, const uint8_t* a, int64_t a_stride,
                                                         __m512i w0, __m512i w1) {
  const __m512i x0 = broadcast(a), x1 = broadcast(a + a_stride);
  if constexpr (kDeep == 2) {
    dot(row.c0, x0, w0);
    dot(row.c1, x0, w1);
    dot(row.c2, x1, w0);
    dot(row.c3, x1, w1);
  } else {
    dot(row.c0, x0, w0);
    dot(row.c1, x1, w0);
    a += 2 * a_stride;
    dot(row.c2, broadcast(a), w0);
    dot(row.c3, broadcast(a + a_stride), w0);
  }
}

// Rows r .. r + kRows * kDeep of a block of few columns.
template <int kRows, int kDeep>
void narrow_tile(const GemmBlock& g, int64_t r) {
  const Row first = first_sums<kDeep>(g);
  Tile t = {first, first, first, first, first, first};
  const int64_t stride = g.a_stride, next = kDeep * stride;
  const uint8_t* a = g.a + r * stride;
  // A pointer for each two Rows: GCC would keep the distances of all rows.
  const uint8_t* a2 = a + 2 * next;
  __asm__("" : "+r"(a2));
  const int8_t* b = g.b;
  for (int64_t line = 0; line < g.lines; ++line) {
    for (int64_t q = 0; q < g.quads; ++q) {
      const __m512i w0 = _mm512_loadu_si512(b);
      const __m512i w1 = kDeep == 2 ? _mm512_loadu_si512(b + 64) : w0;
      multiply_deep<kDeep>(t.r0, a, stride, w0, w1);
      if constexpr (kRows > 1) multiply_deep<kDeep>(t.r1, a + next, stride, w0, w1);
      if constexpr (kRows > 2) multiply_deep<kDeep>(t.r2, a2, stride, w0, w1);
      if constexpr (kRows > 3) multiply_deep<kDeep>(t.r3, a2 + next, stride, w0, w1);
      a += 4;
      a2 += 4;
      b += kQuadBytes;
    }
    const int64_t step = g.line_stride - 4 * g.quads;
    a += step;
    a2 += step;
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

// Memory that the rows of a tile will need when their sums are done. Rows that follow one
// another in memory are a stream, which the CPU fetches by itself: a fetch costs 2 cycles.
inline __attribute__((always_inline)) void fetch_rows(const GemmBlock& g, int64_t begin, int64_t end) {
  if (g.out_stride <= 64) return;
  for (int64_t j = begin; j < end; ++j)
    for (int64_t byte = 0; byte < g.out_bytes; byte += 64) fetch_for_write(g.out + j * g.out_stride + byte);
  if (g.finish_bytes == nullptr || g.finish_bytes->addend.data == nullptr) return;
  const ByteAddend& addend = g.finish_bytes->addend;
  for (int64_t j = begin; j < end; ++j) __builtin_prefetch(addend.data + j * addend.stride);
}

template <int kDeep>
void narrow_block(const GemmBlock& g) {
  const int64_t rows = g.rows / kDeep, tiles = (rows + kNarrowRows - 1) / kNarrowRows;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t r = rows * i / tiles, end = rows * (i + 1) / tiles;
    fetch_rows(g, kDeep * r, kDeep * end);
    kNarrowTiles<kDeep>[end - r](g, kDeep * r);
  }
  if (g.rows % kDeep != 0) kTiles[g.rows % kDeep](g, kDeep * rows, {}, {});
}

// Tiles of equal height, one row more or less: 32 rows as 6 6 5 5 5 5, because a
// tile of 2 rows would wait for its own multiply-adds.
void block(const GemmBlock& g) {
  if (g.columns <= 16) return narrow_block<4>(g);
  if (g.columns <= 32) return narrow_block<2>(g);
  const int64_t height = g.finish_bytes != nullptr && g.quads <= kFewQuads ? kByteTileRows : kTileRows;
  const int64_t tiles = (g.rows + height - 1) / height;
  int64_t lines = (g.next_bytes / 64 + tiles - 1) / tiles;
  if (lines > g.quads) lines = g.quads;
  int64_t input_lines = (g.input_bytes / 64 + tiles - 1) / tiles;
  if (input_lines > g.quads - lines) input_lines = g.quads - lines;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t r = g.rows * i / tiles;
    const int64_t end = g.rows * (i + 1) / tiles;
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
