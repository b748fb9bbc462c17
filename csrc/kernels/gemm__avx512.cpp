// GEMM on AVX512 without VNNI: the method of gemm__avx2.cpp on 512-bit
// registers. 4 rows by 64 columns: 16 accumulators, 8 registers of widened weights.
#include <immintrin.h>

#include "kernels/gemm_block.h"

namespace tae::kernels {
namespace {

template <int kRows>
void tile(const uint8_t* a, int64_t a_stride, const int8_t* b, int64_t quads, int32_t* c,
          int64_t c_stride, bool accumulate) {
  const __m512i low_bytes = _mm512_set1_epi16(0x00ff);
  __m512i acc[kRows][4];
  for (int r = 0; r < kRows; ++r)
    for (int j = 0; j < 4; ++j)
      acc[r][j] =
          accumulate ? _mm512_loadu_si512(c + r * c_stride + 16 * j) : _mm512_setzero_si512();
  for (int64_t q = 0; q < quads; ++q) {
    __m512i even[4], odd[4];
    for (int j = 0; j < 4; ++j) {
      const __m512i w = _mm512_load_si512(b + 64 * j);
      even[j] = _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8);
      odd[j] = _mm512_srai_epi16(w, 8);
    }
    for (int r = 0; r < kRows; ++r) {
      int32_t word;
      __builtin_memcpy(&word, a + r * a_stride, 4);
      const __m512i x = _mm512_set1_epi32(word);
      const __m512i x_even = _mm512_and_si512(x, low_bytes);
      const __m512i x_odd = _mm512_srli_epi16(x, 8);
      for (int j = 0; j < 4; ++j) {
        acc[r][j] = _mm512_add_epi32(acc[r][j], _mm512_madd_epi16(x_even, even[j]));
        acc[r][j] = _mm512_add_epi32(acc[r][j], _mm512_madd_epi16(x_odd, odd[j]));
      }
    }
    a += 4;
    b += kQuadBytes;
  }
  for (int r = 0; r < kRows; ++r)
    for (int j = 0; j < 4; ++j) _mm512_storeu_si512(c + r * c_stride + 16 * j, acc[r][j]);
}

using TileFn = void (*)(const uint8_t*, int64_t, const int8_t*, int64_t, int32_t*, int64_t, bool);
constexpr int64_t kTileRows = 4;
constexpr TileFn kTiles[kTileRows + 1] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>};

void block(const GemmBlock& g) {
  for (int64_t r = 0; r < g.rows; r += kTileRows) {
    const int64_t rows = g.rows - r < kTileRows ? g.rows - r : kTileRows;
    kTiles[rows](g.a + r * g.a_stride, g.a_stride, g.b, g.quads, g.c + r * g.c_stride, g.c_stride,
                 g.accumulate);
  }
}

}  // namespace

extern const GemmKernels kGemmAvx512;
const GemmKernels kGemmAvx512 = {
    .name = "4x64", .row_unit = kTileRows, .row_block = 48, .k_block = 512, .block = block};

}  // namespace tae::kernels
