// byte_rule.h on AVX512, for kernels whose sums are in registers.
#pragma once

#include <immintrin.h>

#include "kernels/byte_rule.h"

namespace tae::kernels {
namespace {

#define TAE_INLINE [[gnu::always_inline]] inline

// 4 x 4 pieces of 4 bytes, transposed: unpacking and packing work inside 128-bit lanes.
TAE_INLINE __m512i transposition() {
  return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
}
TAE_INLINE __m512i transpose(__m512i x) { return _mm512_permutexvar_epi32(transposition(), x); }

// Of 64 bytes, the first `count`.
TAE_INLINE __mmask64 first_bytes(int64_t count) {
  return count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1;
}

TAE_INLINE __m512 real_value(__m512i sum, __m512 scale, __m512 bias) {
  return _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale), bias);
}

// The integer of x, without the zero point.
TAE_INLINE __m512i quotient(__m512 x, const ScaleInverse& inverse) {
  return _mm512_cvtps_epi32(
      _mm512_fmadd_ps(x, _mm512_set1_ps(inverse.high), _mm512_mul_ps(x, _mm512_set1_ps(inverse.low))));
}

// 64 integers to their bytes: in order, with transposition() or another order of groups of 4.
TAE_INLINE __m512i bytes_of(__m512i a, __m512i b, __m512i c, __m512i d, const ByteRule& rule, __m512i order) {
  const __m512i zero_point = _mm512_set1_epi16(rule.zero_point);
  const __m512i ab = _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero_point);
  const __m512i cd = _mm512_adds_epi16(_mm512_packs_epi32(c, d), zero_point);
  __m512i y = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(ab, cd));
  y = _mm512_max_epu8(y, _mm512_set1_epi8(static_cast<char>(rule.least)));
  y = _mm512_min_epu8(y, _mm512_set1_epi8(static_cast<char>(rule.most)));
  return _mm512_xor_si512(y, _mm512_set1_epi8(static_cast<char>(rule.flip)));
}

TAE_INLINE void store_bytes(uint8_t* p, __m512i bytes, int64_t count) {
  if (count >= 64)
    _mm512_storeu_si512(p, bytes);
  else
    _mm512_mask_storeu_epi8(p, first_bytes(count), bytes);
}

}  // namespace
}  // namespace tae::kernels
