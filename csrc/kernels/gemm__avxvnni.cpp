// GEMM with the VEX form of VPDPBUSD (AVX-VNNI: client CPUs without AVX512).
// 3 rows by 32 columns: 12 accumulators, 3 input words and one weight register
// fill the 16 registers.
#include <immintrin.h>

#include "kernels/gemm_block.h"

namespace tae::kernels {
namespace {

template <int kRows>
void tile(const uint8_t* a, int64_t a_stride, const int8_t* b, int64_t quads, int32_t* c,
          int64_t c_stride, bool accumulate) {
  __m256i acc[kRows][4];
  for (int r = 0; r < kRows; ++r)
    for (int j = 0; j < 4; ++j)
      acc[r][j] = accumulate ? _mm256_loadu_si256(
                                   reinterpret_cast<const __m256i*>(c + r * c_stride + 8 * j))
                             : _mm256_setzero_si256();
  for (int64_t q = 0; q < quads; ++q) {
    __m256i x[kRows];
    for (int r = 0; r < kRows; ++r) {
      int32_t word;
      __builtin_memcpy(&word, a + r * a_stride, 4);
      x[r] = _mm256_set1_epi32(word);
    }
    for (int j = 0; j < 4; ++j) {
      const __m256i w = _mm256_load_si256(reinterpret_cast<const __m256i*>(b + 32 * j));
      for (int r = 0; r < kRows; ++r) acc[r][j] = _mm256_dpbusd_avx_epi32(acc[r][j], x[r], w);
    }
    a += 4;
    b += kQuadBytes;
  }
  for (int r = 0; r < kRows; ++r)
    for (int j = 0; j < 4; ++j)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(c + r * c_stride + 8 * j), acc[r][j]);
}

using TileFn = void (*)(const uint8_t*, int64_t, const int8_t*, int64_t, int32_t*, int64_t, bool);
constexpr int64_t kTileRows = 3;
constexpr TileFn kTiles[kTileRows + 1] = {nullptr, tile<1>, tile<2>, tile<3>};

void block(const GemmBlock& g) {
  for (int64_t j = 0; j < kPanelColumns; j += 32)
    for (int64_t r = 0; r < g.rows; r += kTileRows) {
      const int64_t rows = g.rows - r < kTileRows ? g.rows - r : kTileRows;
      kTiles[rows](g.a + r * g.a_stride, g.a_stride, g.b + 4 * j, g.quads,
                   g.c + r * g.c_stride + j, g.c_stride, g.accumulate);
    }
}

}  // namespace

extern const GemmKernels kGemmAvxVnni;
const GemmKernels kGemmAvxVnni = {
    .name = "3x32", .row_unit = kTileRows, .row_block = 48, .k_block = 256, .block = block};

}  // namespace tae::kernels
