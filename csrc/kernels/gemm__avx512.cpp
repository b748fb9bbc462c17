// GEMM on AVX512 without VNNI: the method of gemm__avx2.cpp on 512-bit
// registers. 4 rows by 64 columns: 16 accumulators, 8 registers of widened weights.
#include <immintrin.h>

#include "kernels/gemm_block.h"

namespace tae::kernels {
namespace {

// Four registers across the panel. Named members, not an array: GCC 12 would keep
// an array in memory because it unrolls loops after it has split aggregates.
struct Row {
  __m512i c0, c1, c2, c3;
};

inline __attribute__((always_inline)) Row load(const void* p) {
  const __m512i* v = static_cast<const __m512i*>(p);
  return {_mm512_loadu_si512(v), _mm512_loadu_si512(v + 1), _mm512_loadu_si512(v + 2),
          _mm512_loadu_si512(v + 3)};
}

// Even bytes of 16-bit lanes, sign-extended, and odd ones.
inline __attribute__((always_inline)) __m512i even_bytes(__m512i w) {
  return _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8);
}
inline __attribute__((always_inline)) __m512i odd_bytes(__m512i w) { return _mm512_srai_epi16(w, 8); }

inline __attribute__((always_inline)) void dot(__m512i& acc, __m512i x, __m512i w) {
  acc = _mm512_add_epi32(acc, _mm512_madd_epi16(x, w));
}

inline __attribute__((always_inline)) void multiply(Row& row, const uint8_t* a, const Row& even,
                                                    const Row& odd) {
  int32_t word;
  __builtin_memcpy(&word, a, 4);
  const __m512i x = _mm512_set1_epi32(word);
  const __m512i x_even = _mm512_and_si512(x, _mm512_set1_epi16(0x00ff));
  const __m512i x_odd = _mm512_srli_epi16(x, 8);
  dot(row.c0, x_even, even.c0);
  dot(row.c1, x_even, even.c1);
  dot(row.c2, x_even, even.c2);
  dot(row.c3, x_even, even.c3);
  dot(row.c0, x_odd, odd.c0);
  dot(row.c1, x_odd, odd.c1);
  dot(row.c2, x_odd, odd.c2);
  dot(row.c3, x_odd, odd.c3);
}

inline __attribute__((always_inline)) void store(const Row& row, int32_t* c, bool accumulate) {
  Row sum = row;
  if (accumulate) {
    const Row old = load(c);
    sum = {_mm512_add_epi32(row.c0, old.c0), _mm512_add_epi32(row.c1, old.c1),
           _mm512_add_epi32(row.c2, old.c2), _mm512_add_epi32(row.c3, old.c3)};
  }
  _mm512_storeu_si512(c, sum.c0);
  _mm512_storeu_si512(c + 16, sum.c1);
  _mm512_storeu_si512(c + 32, sum.c2);
  _mm512_storeu_si512(c + 48, sum.c3);
}

template <int kRows>
void tile(const uint8_t* a, int64_t a_stride, const int8_t* b, int64_t quads, int32_t* c, int64_t c_stride,
          bool accumulate) {
  const __m512i zero = _mm512_setzero_si512();
  const Row zeros = {zero, zero, zero, zero};
  Row r0 = zeros, r1 = zeros, r2 = zeros, r3 = zeros;
  for (int64_t q = 0; q < quads; ++q) {
    const Row w = load(b);
    const Row even = {even_bytes(w.c0), even_bytes(w.c1), even_bytes(w.c2), even_bytes(w.c3)};
    const Row odd = {odd_bytes(w.c0), odd_bytes(w.c1), odd_bytes(w.c2), odd_bytes(w.c3)};
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
  for (int64_t r = 0; r < g.rows; r += kTileRows) {
    const int64_t rows = g.rows - r < kTileRows ? g.rows - r : kTileRows;
    kTiles[rows](g.a + r * g.a_stride, g.a_stride, g.b, g.quads, g.c + r * g.c_stride, g.c_stride,
                 g.accumulate);
  }
}

}  // namespace

extern const GemmKernels kGemmAvx512;
const GemmKernels kGemmAvx512 = {
    .name = "4x64", .row_unit = kTileRows, .row_block = 12, .k_block = 1024, .block = block};

}  // namespace tae::kernels
