// GEMM with the VEX form of VPDPBUSD (AVX-VNNI: client CPUs without AVX512).
// 3 rows by 32 columns: 12 accumulators, 3 input words and one weight register
// fill the 16 registers.
#include <immintrin.h>

#include "kernels/gemm_tiles-inl.h"

namespace tae::kernels {
namespace {

// 32 columns. Named members, not an array: GCC 12 would keep an array in memory
// because it unrolls loops after it has split aggregates.
struct Row {
  __m256i c0, c1, c2, c3;
};

inline __attribute__((always_inline)) __m256i load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

inline __attribute__((always_inline)) __m256i broadcast(const uint8_t* a) {
  return _mm256_set1_epi32(load_quad(a));
}

inline __attribute__((always_inline)) void dot(__m256i& acc, __m256i x, __m256i w) {
  acc = _mm256_dpbusd_avx_epi32(acc, x, w);
}

inline __attribute__((always_inline)) void store(__m256i sum, int32_t* c, bool accumulate) {
  if (accumulate) sum = _mm256_add_epi32(sum, load(c));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(c), sum);
}

inline __attribute__((always_inline)) void store(const Row& row, int32_t* c, bool accumulate) {
  store(row.c0, c, accumulate);
  store(row.c1, c + 8, accumulate);
  store(row.c2, c + 16, accumulate);
  store(row.c3, c + 24, accumulate);
}

template <int kRows>
void tile(TileRows rows, const int8_t* b, int32_t* c, int64_t c_stride, bool accumulate) {
  const __m256i zero = _mm256_setzero_si256();
  const Row zeros = {zero, zero, zero, zero};
  Row r0 = zeros, r1 = zeros, r2 = zeros;
  // Rows that the tile lacks repeat row 0 and are optimized away.
  const int64_t second = kRows > 1 ? rows.a_stride : 0;
  const int64_t third = kRows > 2 ? 2 * rows.a_stride : 0;
  for (int64_t line = 0; line < rows.lines; ++line) {
    const uint8_t* a = rows.a + line * rows.line_stride;
    for (int64_t q = 0; q < rows.quads; ++q) {
      const __m256i x0 = broadcast(a), x1 = broadcast(a + second), x2 = broadcast(a + third);
      const auto column = [&](__m256i& s0, __m256i& s1, __m256i& s2, __m256i w)
                              __attribute__((always_inline)) {
                                dot(s0, x0, w);
                                if constexpr (kRows > 1) dot(s1, x1, w);
                                if constexpr (kRows > 2) dot(s2, x2, w);
                              };
      column(r0.c0, r1.c0, r2.c0, load(b));
      column(r0.c1, r1.c1, r2.c1, load(b + 32));
      column(r0.c2, r1.c2, r2.c2, load(b + 64));
      column(r0.c3, r1.c3, r2.c3, load(b + 96));
      a += 4;
      b += kQuadBytes;
    }
  }
  store(r0, c, accumulate);
  if constexpr (kRows > 1) store(r1, c + c_stride, accumulate);
  if constexpr (kRows > 2) store(r2, c + 2 * c_stride, accumulate);
}

constexpr TileFn kTiles[] = {nullptr, tile<1>, tile<2>, tile<3>};

void block(const GemmBlock& g) { block_of_tiles<32>(g, kTiles); }

}  // namespace

extern const GemmKernels kGemmAvxVnni;
const GemmKernels kGemmAvxVnni = {
    .name = "3x32", .row_unit = 3, .row_block = 12, .k_block = 512, .takes_lines = true, .block = block};

}  // namespace tae::kernels
