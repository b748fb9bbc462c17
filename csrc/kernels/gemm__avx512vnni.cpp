// GEMM with VPDPBUSD on 512-bit registers. 6 rows by 64 columns: 24 of the 32
// registers accumulate, 4 hold weights, and a step of 4 k costs 10 loads for 24
// multiply-adds, so the two multiply ports (p0, p5) stay busy.
#include <immintrin.h>

#include "kernels/gemm_block.h"

namespace tae::kernels {
namespace {

inline __attribute__((always_inline)) __m512i broadcast(const uint8_t* a) {
  int32_t word;
  __builtin_memcpy(&word, a, 4);
  return _mm512_set1_epi32(word);
}

template <int kRows>
void tile(const uint8_t* a, int64_t a_stride, const int8_t* b, int64_t quads, int32_t* c,
          int64_t c_stride, bool accumulate) {
  __m512i acc[kRows][4];
  if (accumulate) {
    for (int r = 0; r < kRows; ++r)
      for (int j = 0; j < 4; ++j) acc[r][j] = _mm512_loadu_si512(c + r * c_stride + 16 * j);
  } else {
    for (int r = 0; r < kRows; ++r)
      for (int j = 0; j < 4; ++j) acc[r][j] = _mm512_setzero_si512();
  }
#pragma GCC unroll 2
  for (int64_t q = 0; q < quads; ++q) {
    __m512i w[4];
    for (int j = 0; j < 4; ++j) w[j] = _mm512_load_si512(b + 64 * j);
    for (int r = 0; r < kRows; ++r) {
      const __m512i x = broadcast(a + r * a_stride);
      for (int j = 0; j < 4; ++j) acc[r][j] = _mm512_dpbusd_epi32(acc[r][j], x, w[j]);
    }
    a += 4;
    b += kQuadBytes;
  }
  for (int r = 0; r < kRows; ++r)
    for (int j = 0; j < 4; ++j) _mm512_storeu_si512(c + r * c_stride + 16 * j, acc[r][j]);
}

using TileFn = void (*)(const uint8_t*, int64_t, const int8_t*, int64_t, int32_t*, int64_t, bool);
constexpr int64_t kTileRows = 6;
constexpr TileFn kTiles[kTileRows + 1] = {nullptr,  tile<1>, tile<2>, tile<3>,
                                          tile<4>, tile<5>, tile<6>};

void block(const GemmBlock& g) {
  for (int64_t r = 0; r < g.rows; r += kTileRows) {
    const int64_t rows = g.rows - r < kTileRows ? g.rows - r : kTileRows;
    kTiles[rows](g.a + r * g.a_stride, g.a_stride, g.b, g.quads, g.c + r * g.c_stride, g.c_stride,
                 g.accumulate);
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
        acc[0][j] =
            _mm512_dpbusd_epi32(acc[0][j], x, _mm512_load_si512(b + q * kQuadBytes + 64 * j));
    }
    for (int j = 0; j < 4; ++j)
      _mm512_storeu_si512(g.c + p * kPanelColumns + 16 * j,
                          _mm512_add_epi32(acc[0][j], acc[1][j]));
  }
}

}  // namespace

extern const GemmKernels kGemmAvx512Vnni;
const GemmKernels kGemmAvx512Vnni = {
    .name = "6x64", .row_multiple = 1, .quad_multiple = 1, .row_unit = 6, .row_block = 48,
    .k_block = 512, .block = block, .gemv = gemv};

}  // namespace tae::kernels
