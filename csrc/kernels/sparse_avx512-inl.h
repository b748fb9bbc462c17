// What the two 512-bit levels share: everything but the weights and the dot product.

// GCC 12 takes the undefined pass-through operands of avx512fintrin.h for variables
// that we forgot to set (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>

#include "kernels/sparse-inl.h"

namespace tae::kernels {
namespace {

struct Vec512 {
  using T = __m512i;
  static constexpr int kBytes = 64;
  static T zero() { return _mm512_setzero_si512(); }
  static T load(const void* p) { return _mm512_loadu_si512(p); }
  static void store(void* p, T v) { _mm512_storeu_si512(p, v); }
  static T lo8(T a, T b) { return _mm512_unpacklo_epi8(a, b); }
  static T hi8(T a, T b) { return _mm512_unpackhi_epi8(a, b); }
  static T lo16(T a, T b) { return _mm512_unpacklo_epi16(a, b); }
  static T hi16(T a, T b) { return _mm512_unpackhi_epi16(a, b); }
  static T pair(uint64_t quads) { return _mm512_set1_epi64(static_cast<long long>(quads)); }
};

// 16 by 16 dwords between registers.
inline __attribute__((always_inline)) void transpose(__m512i v[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // v[4 a + b] holds, in lane l, column 4 l + b of rows 4 a .. 4 a + 3.
#pragma GCC unroll 4
  for (int b = 0; b < 4; ++b) {
    const __m512i low01 = _mm512_shuffle_i32x4(v[b], v[4 + b], 0x88);
    const __m512i low23 = _mm512_shuffle_i32x4(v[8 + b], v[12 + b], 0x88);
    const __m512i high01 = _mm512_shuffle_i32x4(v[b], v[4 + b], 0xdd);
    const __m512i high23 = _mm512_shuffle_i32x4(v[8 + b], v[12 + b], 0xdd);
    t[b] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    t[8 + b] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    t[4 + b] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    t[12 + b] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) v[i] = t[i];
}

inline void transpose16_vector(const int32_t* src, int64_t src_stride, int32_t* dst, int64_t dst_stride) {
  __m512i v[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) v[i] = _mm512_loadu_si512(src + i * src_stride);
  transpose(v);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(dst + i * dst_stride, v[i]);
}

// Quads q .. q + 15 of 16 rows, zero outside rows and quads: v[q] holds 16 rows.
inline __attribute__((always_inline)) void load_quads(const uint8_t* x, int64_t stride, int64_t rows,
                                                      int64_t quads, __m512i v[16]) {
  const __mmask16 mask = static_cast<__mmask16>(quads >= 16 ? 0xffff : (1u << quads) - 1);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i)
    v[i] = i < rows ? _mm512_maskz_loadu_epi32(mask, x + i * stride) : _mm512_setzero_si512();
  transpose(v);
}

inline void to_quads_vector(const uint8_t* x, int64_t stride, int64_t rows, int64_t quads, uint8_t* xt) {
  for (int64_t m = 0; m < rows; m += 16) {
    for (int64_t q = 0; q < quads; q += 16) {
      __m512i v[16];
      load_quads(x + m * stride + 4 * q, stride, rows - m, quads - q, v);
      const int64_t count = quads - q < 16 ? quads - q : 16;
      for (int64_t i = 0; i < count; ++i) _mm512_storeu_si512(xt + (q + i) * kQuadLine + 4 * m, v[i]);
    }
  }
}

// Quads of 64 rows first (in `quad`, one step of 16 quads), then the four k of each
// quad apart: in every lane the bytes are sorted by k, and 4 by 4 dwords turned.
inline void to_bytes_vector(const uint8_t* x, int64_t stride, int64_t rows, int64_t quads, uint8_t* xt) {
  const __m512i by_k =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const __m512i zero = _mm512_setzero_si512();
  for (int64_t q = 0; q < quads; q += 16) {
    __m512i quad[4][16];
    for (int r = 0; r < 4; ++r) {
      if (16 * r < rows)
        load_quads(x + 16 * r * stride + 4 * q, stride, rows - 16 * r, quads - q, quad[r]);
      else
        for (__m512i& v : quad[r]) v = zero;
    }
    const int64_t count = quads - q < 16 ? quads - q : 16;
    for (int64_t i = 0; i < count; ++i) {
      const __m512i a = _mm512_shuffle_epi8(quad[0][i], by_k), b = _mm512_shuffle_epi8(quad[1][i], by_k);
      const __m512i c = _mm512_shuffle_epi8(quad[2][i], by_k), d = _mm512_shuffle_epi8(quad[3][i], by_k);
      const __m512i ab0 = _mm512_unpacklo_epi32(a, b), ab1 = _mm512_unpackhi_epi32(a, b);
      const __m512i cd0 = _mm512_unpacklo_epi32(c, d), cd1 = _mm512_unpackhi_epi32(c, d);
      uint8_t* line = xt + 4 * (q + i) * kByteLine;
      _mm512_storeu_si512(line, _mm512_unpacklo_epi64(ab0, cd0));
      _mm512_storeu_si512(line + kByteLine, _mm512_unpackhi_epi64(ab0, cd0));
      _mm512_storeu_si512(line + 2 * kByteLine, _mm512_unpacklo_epi64(ab1, cd1));
      _mm512_storeu_si512(line + 3 * kByteLine, _mm512_unpackhi_epi64(ab1, cd1));
    }
  }
}

inline void to_table_vector(const uint8_t* x, int64_t k, uint32_t* table) {
  const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  const __m512i shift = _mm512_setr_epi32(0, 8, 16, 24, 0, 8, 16, 24, 0, 8, 16, 24, 0, 8, 16, 24);
  for (int64_t i = 0; i < k; i += 4) {
    const __m128i four = _mm_cvtepu8_epi32(_mm_cvtsi32_si128(load_dword(x + i)));
    const __m512i v = _mm512_permutexvar_epi32(spread, _mm512_castsi128_si512(four));
    _mm512_storeu_si512(table + 4 * i, _mm512_sllv_epi32(v, shift));
  }
}

// Four groups a step, on two chains of sums.
template <class V, class Input>
void gemv8_fours(const SparseRows8& w, const int32_t* pairs, int64_t rows, const void* input, int32_t* c) {
  int64_t i = 0;
  for (int64_t r = 0; r < rows; ++r) {
    __m512i a = V::zero(), b = V::zero();
    for (const int64_t end = i + pairs[r]; i < end; i += 2) {
      a = V::dot(a, V::pair(Input::pair(w, input, i)), V::weights(w.values + 64 * i));
      b = V::dot(b, V::pair(Input::pair(w, input, i + 1)), V::weights(w.values + 64 * i + 64));
    }
    a = _mm512_add_epi32(a, b);
    a = _mm512_add_epi32(a, _mm512_srli_epi64(a, 32));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(c + 8 * r), _mm512_cvtepi64_epi32(a));
  }
}

}  // namespace
}  // namespace tae::kernels
