// Compiled with the flags of its level: everything but the table has internal linkage.
#include <immintrin.h>

#include "kernels/sparse-inl.h"

namespace tae::kernels {
namespace {

struct Avx2 {
  using T = __m256i;
  struct Weight {
    T even, odd;
  };
  static constexpr int kBytes = 32;
  static T zero() { return _mm256_setzero_si256(); }
  static T load(const void* p) { return _mm256_loadu_si256(static_cast<const T*>(p)); }
  static void store(void* p, T v) { _mm256_storeu_si256(static_cast<T*>(p), v); }
  static Weight split(T w) {
    return {_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
  }
  static Weight weight(int32_t quad) { return split(_mm256_set1_epi32(quad)); }
  static Weight weights(const int8_t* p) { return split(load(p)); }
  static T pair(uint64_t quads) { return _mm256_set1_epi64x(static_cast<long long>(quads)); }
  // 16-bit products: exact where VPMADDUBSW would saturate.
  static T dot(T acc, T x, const Weight& w) {
    const T even = _mm256_madd_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0xff)), w.even);
    const T odd = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), w.odd);
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
  }
  static T lo8(T a, T b) { return _mm256_unpacklo_epi8(a, b); }
  static T hi8(T a, T b) { return _mm256_unpackhi_epi8(a, b); }
  static T lo16(T a, T b) { return _mm256_unpacklo_epi16(a, b); }
  static T hi16(T a, T b) { return _mm256_unpackhi_epi16(a, b); }
};

}  // namespace

extern const SparseKernels sparse_kernels__avx2;
const SparseKernels sparse_kernels__avx2 = {
    "avx2 16-bit",  to_quads_plain, to_bytes_plain,         rows4<Avx2>,      rows8<Avx2>,
    to_table_plain, nullptr,        gemv8<Avx2, FromTable>, transpose16_plain};

}  // namespace tae::kernels
