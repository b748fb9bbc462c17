// GEMM on AVX512 without VNNI, widened to 16 bits. 4 rows by 64 columns: 16
// accumulators, 8 registers of widened weights.
#include <immintrin.h>

#include "kernels/gemm_tiles-inl.h"

namespace tae::kernels {
namespace {

#define TAE_INLINE inline __attribute__((always_inline))

// Four registers across the panel. Named members, not an array: GCC 12 would keep
// an array in memory because it unrolls loops after it has split aggregates.
struct Row {
  __m512i c0, c1, c2, c3;

  static TAE_INLINE Row zeros() {
    const __m512i zero = _mm512_setzero_si512();
    return {zero, zero, zero, zero};
  }
  static TAE_INLINE Row load(const void* p) {
    const __m512i* v = static_cast<const __m512i*>(p);
    return {_mm512_loadu_si512(v), _mm512_loadu_si512(v + 1), _mm512_loadu_si512(v + 2),
            _mm512_loadu_si512(v + 3)};
  }
  // Of 16-bit lanes, sign-extended.
  TAE_INLINE Row even_bytes() const { return {even(c0), even(c1), even(c2), even(c3)}; }
  TAE_INLINE Row odd_bytes() const { return {odd(c0), odd(c1), odd(c2), odd(c3)}; }

  TAE_INLINE void add_products(const uint8_t* a, const Row& w_even, const Row& w_odd) {
    const __m512i x = _mm512_set1_epi32(load_quad(a));
    const __m512i x_even = _mm512_and_si512(x, _mm512_set1_epi16(0x00ff));
    const __m512i x_odd = _mm512_srli_epi16(x, 8);
    dot(c0, x_even, w_even.c0);
    dot(c1, x_even, w_even.c1);
    dot(c2, x_even, w_even.c2);
    dot(c3, x_even, w_even.c3);
    dot(c0, x_odd, w_odd.c0);
    dot(c1, x_odd, w_odd.c1);
    dot(c2, x_odd, w_odd.c2);
    dot(c3, x_odd, w_odd.c3);
  }
  TAE_INLINE void store(int32_t* c, bool accumulate) const {
    Row sum = *this;
    if (accumulate) {
      const Row old = load(c);
      sum = {_mm512_add_epi32(c0, old.c0), _mm512_add_epi32(c1, old.c1), _mm512_add_epi32(c2, old.c2),
             _mm512_add_epi32(c3, old.c3)};
    }
    _mm512_storeu_si512(c, sum.c0);
    _mm512_storeu_si512(c + 16, sum.c1);
    _mm512_storeu_si512(c + 32, sum.c2);
    _mm512_storeu_si512(c + 48, sum.c3);
  }

 private:
  static TAE_INLINE __m512i even(__m512i w) { return _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8); }
  static TAE_INLINE __m512i odd(__m512i w) { return _mm512_srai_epi16(w, 8); }
  static TAE_INLINE void dot(__m512i& acc, __m512i x, __m512i w) {
    acc = _mm512_add_epi32(acc, _mm512_madd_epi16(x, w));
  }
};

constexpr TileFn kTiles[] = {nullptr, widening_tile<Row, 1>, widening_tile<Row, 2>, widening_tile<Row, 3>,
                             widening_tile<Row, 4>};

void block(const GemmBlock& g) { block_of_tiles<64>(g, kTiles); }

}  // namespace

extern const GemmKernels kGemmAvx512;
const GemmKernels kGemmAvx512 = {
    .name = "4x64", .row_unit = 4, .row_block = 12, .k_block = 1024, .takes_lines = true, .block = block};

}  // namespace tae::kernels
