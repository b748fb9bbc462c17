// GEMM on AVX2. VPMADDUBSW would saturate at 255 * 127 * 2, so bytes are widened
// to 16 bits and multiplied with VPMADDWD: exact. Weights and input are split
// into even and odd k alike, which takes shifts only and keeps one column per
// 32-bit lane.
#include <immintrin.h>

#include "kernels/gemm_block.h"

namespace tae::kernels {
namespace {

// kRows by 16 columns: 2 * kRows of the 16 registers accumulate.
template <int kRows>
void tile(const uint8_t* a, int64_t a_stride, const int8_t* b, int64_t quads, int32_t* c,
          int64_t c_stride, bool accumulate) {
  const __m256i low_bytes = _mm256_set1_epi16(0x00ff);
  __m256i acc[kRows][2];
  for (int r = 0; r < kRows; ++r)
    for (int j = 0; j < 2; ++j)
      acc[r][j] = accumulate ? _mm256_loadu_si256(
                                   reinterpret_cast<const __m256i*>(c + r * c_stride + 8 * j))
                             : _mm256_setzero_si256();
  for (int64_t q = 0; q < quads; ++q) {
    __m256i even[2], odd[2];
    for (int j = 0; j < 2; ++j) {
      const __m256i w = _mm256_load_si256(reinterpret_cast<const __m256i*>(b + 32 * j));
      even[j] = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8);
      odd[j] = _mm256_srai_epi16(w, 8);
    }
    for (int r = 0; r < kRows; ++r) {
      int32_t word;
      __builtin_memcpy(&word, a + r * a_stride, 4);
      const __m256i x = _mm256_set1_epi32(word);
      const __m256i x_even = _mm256_and_si256(x, low_bytes);
      const __m256i x_odd = _mm256_srli_epi16(x, 8);
      for (int j = 0; j < 2; ++j) {
        acc[r][j] = _mm256_add_epi32(acc[r][j], _mm256_madd_epi16(x_even, even[j]));
        acc[r][j] = _mm256_add_epi32(acc[r][j], _mm256_madd_epi16(x_odd, odd[j]));
      }
    }
    a += 4;
    b += kQuadBytes;
  }
  for (int r = 0; r < kRows; ++r)
    for (int j = 0; j < 2; ++j)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(c + r * c_stride + 8 * j), acc[r][j]);
}

using TileFn = void (*)(const uint8_t*, int64_t, const int8_t*, int64_t, int32_t*, int64_t, bool);
constexpr int64_t kTileRows = 4;
constexpr TileFn kTiles[kTileRows + 1] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>};

void block(const GemmBlock& g) {
  for (int64_t j = 0; j < kPanelColumns; j += 16)
    for (int64_t r = 0; r < g.rows; r += kTileRows) {
      const int64_t rows = g.rows - r < kTileRows ? g.rows - r : kTileRows;
      kTiles[rows](g.a + r * g.a_stride, g.a_stride, g.b + 4 * j, g.quads,
                   g.c + r * g.c_stride + j, g.c_stride, g.accumulate);
    }
}

}  // namespace

extern const GemmKernels kGemmAvx2;
const GemmKernels kGemmAvx2 = {
    .name = "4x16", .row_unit = kTileRows, .row_block = 48, .k_block = 256, .block = block};

}  // namespace tae::kernels
