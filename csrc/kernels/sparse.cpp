// Portable kernels (SSE2, the baseline) and the choice of a level.
#include "kernels/sparse.h"

#include <emmintrin.h>

#include "kernels/sparse-inl.h"

namespace tae::kernels {
namespace {

struct Sse2 {
  using T = __m128i;
  struct Weight {
    T even, odd;
  };
  static constexpr int kBytes = 16;
  static T zero() { return _mm_setzero_si128(); }
  static T load(const void* p) { return _mm_loadu_si128(static_cast<const T*>(p)); }
  static void store(void* p, T v) { _mm_storeu_si128(static_cast<T*>(p), v); }
  static Weight split(T w) { return {_mm_srai_epi16(_mm_slli_epi16(w, 8), 8), _mm_srai_epi16(w, 8)}; }
  static Weight weight(int32_t quad) { return split(_mm_set1_epi32(quad)); }
  static Weight weights(const int8_t* p) { return split(load(p)); }
  static T pair(uint64_t quads) { return _mm_set1_epi64x(static_cast<long long>(quads)); }
  // 16-bit products: exact where PMADDUBSW would saturate.
  static T dot(T acc, T x, const Weight& w) {
    const T even = _mm_madd_epi16(_mm_and_si128(x, _mm_set1_epi16(0xff)), w.even);
    const T odd = _mm_madd_epi16(_mm_srli_epi16(x, 8), w.odd);
    return _mm_add_epi32(acc, _mm_add_epi32(even, odd));
  }
  static T lo8(T a, T b) { return _mm_unpacklo_epi8(a, b); }
  static T hi8(T a, T b) { return _mm_unpackhi_epi8(a, b); }
  static T lo16(T a, T b) { return _mm_unpacklo_epi16(a, b); }
  static T hi16(T a, T b) { return _mm_unpackhi_epi16(a, b); }
};

constexpr SparseKernels kPortable = {"sse2 16-bit",    to_quads_plain, to_bytes_plain, rows4<Sse2>,
                                     rows8<Sse2>,      to_table_plain, nullptr,        gemv8<Sse2, FromTable>,
                                     transpose16_plain};

}  // namespace

extern const SparseKernels sparse_kernels__avx2;
extern const SparseKernels sparse_kernels__avx512;
extern const SparseKernels sparse_kernels__avx512vnni;
extern const SparseKernels sparse_kernels__avx512vnni_vbmi;

const SparseKernels& sparse_kernels(Isa isa) {
  if (isa >= Isa::avx512_vnni)
    return has_byte_permutation() ? sparse_kernels__avx512vnni_vbmi : sparse_kernels__avx512vnni;
  if (isa >= Isa::avx512) return sparse_kernels__avx512;
  return isa >= Isa::avx2 ? sparse_kernels__avx2 : kPortable;
}

}  // namespace tae::kernels
