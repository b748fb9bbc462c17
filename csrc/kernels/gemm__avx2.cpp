// GEMM on AVX2, widened to 16 bits. 4 rows by 16 columns: 8 accumulators, 4 registers
// of widened weights.
#include <immintrin.h>

#include "kernels/gemm_tiles-inl.h"

namespace tae::kernels {
namespace {

#define TAE_INLINE inline __attribute__((always_inline))

// 16 columns. Named members, not an array: GCC 12 would keep an array in memory
// because it unrolls loops after it has split aggregates.
struct Row {
  __m256i c0, c1;

  static TAE_INLINE Row zeros() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static TAE_INLINE Row load(const void* p) {
    const __m256i* v = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
  }
  // Of 16-bit lanes, sign-extended.
  TAE_INLINE Row even_bytes() const { return {even(c0), even(c1)}; }
  TAE_INLINE Row odd_bytes() const { return {odd(c0), odd(c1)}; }

  TAE_INLINE void add_products(const uint8_t* a, const Row& w_even, const Row& w_odd) {
    const __m256i x = _mm256_set1_epi32(load_quad(a));
    const __m256i x_even = _mm256_and_si256(x, _mm256_set1_epi16(0x00ff));
    const __m256i x_odd = _mm256_srli_epi16(x, 8);
    dot(c0, x_even, w_even.c0);
    dot(c1, x_even, w_even.c1);
    dot(c0, x_odd, w_odd.c0);
    dot(c1, x_odd, w_odd.c1);
  }
  TAE_INLINE void store(int32_t* c, bool accumulate) const {
    Row sum = *this;
    if (accumulate) {
      const Row old = load(c);
      sum = {_mm256_add_epi32(c0, old.c0), _mm256_add_epi32(c1, old.c1)};
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(c), sum.c0);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(c + 8), sum.c1);
  }

 private:
  static TAE_INLINE __m256i even(__m256i w) { return _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8); }
  static TAE_INLINE __m256i odd(__m256i w) { return _mm256_srai_epi16(w, 8); }
  static TAE_INLINE void dot(__m256i& acc, __m256i x, __m256i w) {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(x, w));
  }
};

constexpr TileFn kTiles[] = {nullptr, widening_tile<Row, 1>, widening_tile<Row, 2>, widening_tile<Row, 3>,
                             widening_tile<Row, 4>};

void block(const GemmBlock& g) { block_of_tiles<16>(g, kTiles); }

}  // namespace

extern const GemmKernels kGemmAvx2;
const GemmKernels kGemmAvx2 = {
    .name = "4x16", .row_unit = 4, .row_block = 12, .k_block = 256, .takes_lines = true, .block = block};

}  // namespace tae::kernels
