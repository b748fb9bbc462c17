// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/sparse_avx512-inl.h"

namespace tae::kernels {
namespace {

struct Avx512 : Vec512 {
  struct Weight {
    T even, odd;
  };
  static Weight split(T w) {
    return {_mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8), _mm512_srai_epi16(w, 8)};
  }
  static Weight weight(int32_t quad) { return split(_mm512_set1_epi32(quad)); }
  static Weight weights(const int8_t* p) { return split(load(p)); }
  static T dot(T acc, T x, const Weight& w) {
    const T even = _mm512_madd_epi16(_mm512_and_si512(x, _mm512_set1_epi16(0xff)), w.even);
    const T odd = _mm512_madd_epi16(_mm512_srli_epi16(x, 8), w.odd);
    return _mm512_add_epi32(acc, _mm512_add_epi32(even, odd));
  }
};

}  // namespace

extern const SparseKernels sparse_kernels__avx512;
const SparseKernels sparse_kernels__avx512 = {
    "avx512 16-bit",   to_quads_vector, to_bytes_vector, rows4<Avx512>,
    rows8<Avx512>,     to_table_vector, nullptr,         gemv8_fours<Avx512, FromTable>,
    transpose16_vector};

}  // namespace tae::kernels
