// GEMM on AVX2. VPMADDUBSW would saturate at 255 * 127 * 2, so bytes are widened
// to 16 bits and multiplied with VPMADDWD: exact. Weights and input are split
// into even and odd k alike, which takes shifts only and keeps one column per
// 32-bit lane. 4 rows by 16 columns: 8 accumulators, 4 registers of widened weights.
#include <immintrin.h>

#include "kernels/gemm_block.h"

namespace tae::kernels {
namespace {

// 16 columns. Named members, not an array: GCC 12 would keep an array in memory
// because it unrolls loops after it has split aggregates.
struct Row {
  __m256i c0, c1;
};

inline __attribute__((always_inline)) Row load(const void* p) {
  const __m256i* v = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
}

// Even bytes of 16-bit lanes, sign-extended, and odd ones.
inline __attribute__((always_inline)) __m256i even_bytes(__m256i w) {
  return _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8);
}
inline __attribute__((always_inline)) __m256i odd_bytes(__m256i w) { return _mm256_srai_epi16(w, 8); }

inline __attribute__((always_inline)) void dot(__m256i& acc, __m256i x, __m256i w) {
  acc = _mm256_add_epi32(acc, _mm256_madd_epi16(x, w));
}

inline __attribute__((always_inline)) void multiply(Row& row, const uint8_t* a, const Row& even,
                                                    const Row& odd) {
  int32_t word;
  __builtin_memcpy(&word, a, 4);
  const __m256i x = _mm256_set1_epi32(word);
  const __m256i x_even = _mm256_and_si256(x, _mm256_set1_epi16(0x00ff));
  const __m256i x_odd = _mm256_srli_epi16(x, 8);
  dot(row.c0, x_even, even.c0);
  dot(row.c1, x_even, even.c1);
  dot(row.c0, x_odd, odd.c0);
  dot(row.c1, x_odd, odd.c1);
}

inline __attribute__((always_inline)) void store(const Row& row, int32_t* c, bool accumulate) {
  Row sum = row;
  if (accumulate) {
    const Row old = load(c);
    sum = {_mm256_add_epi32(row.c0, old.c0), _mm256_add_epi32(row.c1, old.c1)};
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(c), sum.c0);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(c + 8), sum.c1);
}

template <int kRows>
void tile(const uint8_t* a, int64_t a_stride, const int8_t* b, int64_t quads, int32_t* c, int64_t c_stride,
          bool accumulate) {
  const Row zeros = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  Row r0 = zeros, r1 = zeros, r2 = zeros, r3 = zeros;
  for (int64_t q = 0; q < quads; ++q) {
    const Row w = load(b);
    const Row even = {even_bytes(w.c0), even_bytes(w.c1)};
    const Row odd = {odd_bytes(w.c0), odd_bytes(w.c1)};
    multiply(r0, a, even, odd);
    if constexpr (kRows > 1) multiply(r1, a + a_stride, even, odd);
    if constexpr (kRows > 2) multiply(r2, a + 2 * a_stride, even, odd);
    if constexpr (kRows > 3) multiply(r3, a + 3 * a_stride, even, odd);
    a += 4;
    b += kQuadBytes;
  }
  store(r0, c, accumulate);
  if constexpr (kRows > 1) store(r1, c + c_stride, accumulate);
  if constexpr (kRows > 2) store(r2, c + 2 * c_stride, accumulate);
  if constexpr (kRows > 3) store(r3, c + 3 * c_stride, accumulate);
}

using TileFn = void (*)(const uint8_t*, int64_t, const int8_t*, int64_t, int32_t*, int64_t, bool);
constexpr int64_t kTileRows = 4;
constexpr TileFn kTiles[kTileRows + 1] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>};

void block(const GemmBlock& g) {
  for (int64_t j = 0; j < kPanelColumns; j += 16)
    for (int64_t r = 0; r < g.rows; r += kTileRows) {
      const int64_t rows = g.rows - r < kTileRows ? g.rows - r : kTileRows;
      kTiles[rows](g.a + r * g.a_stride, g.a_stride, g.b + 4 * j, g.quads, g.c + r * g.c_stride + j,
                   g.c_stride, g.accumulate);
    }
}

}  // namespace

extern const GemmKernels kGemmAvx2;
const GemmKernels kGemmAvx2 = {
    .name = "4x16", .row_unit = kTileRows, .row_block = 12, .k_block = 256, .block = block};

}  // namespace tae::kernels
