// Panels of activations on AVX512: ends by masks, so that no shape is slow.

// GCC 12 takes the undefined pass-through operands of avx512fintrin.h for variables
// that we forgot to set (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>

#include "kernels/matmul_pack.h"

namespace tae::kernels {
namespace {

#define TAE_INLINE inline __attribute__((always_inline))

__mmask64 first_bytes(int64_t n) { return n >= 64 ? ~0ull : n <= 0 ? 0 : (1ull << n) - 1; }

// Word i of vector j becomes word j of vector i of each 128-bit lane.
TAE_INLINE void transpose_in_lanes(__m512i& a, __m512i& b, __m512i& c, __m512i& d) {
  const __m512i ab_low = _mm512_unpacklo_epi32(a, b), ab_high = _mm512_unpackhi_epi32(a, b);
  const __m512i cd_low = _mm512_unpacklo_epi32(c, d), cd_high = _mm512_unpackhi_epi32(c, d);
  a = _mm512_unpacklo_epi64(ab_low, cd_low);
  b = _mm512_unpackhi_epi64(ab_low, cd_low);
  c = _mm512_unpacklo_epi64(ab_high, cd_high);
  d = _mm512_unpackhi_epi64(ab_high, cd_high);
}

// 128-bit lane i of vector j becomes lane j of vector i.
TAE_INLINE void transpose_lanes(__m512i& a, __m512i& b, __m512i& c, __m512i& d) {
  const __m512i ab_low = _mm512_shuffle_i32x4(a, b, 0x44), ab_high = _mm512_shuffle_i32x4(a, b, 0xee);
  const __m512i cd_low = _mm512_shuffle_i32x4(c, d, 0x44), cd_high = _mm512_shuffle_i32x4(c, d, 0xee);
  a = _mm512_shuffle_i32x4(ab_low, cd_low, 0x88);
  b = _mm512_shuffle_i32x4(ab_low, cd_low, 0xdd);
  c = _mm512_shuffle_i32x4(ab_high, cd_high, 0x88);
  d = _mm512_shuffle_i32x4(ab_high, cd_high, 0xdd);
}

// Rows [4 * quad, + 4) of up to 64 columns that lie side by side; `rows` of them exist.
TAE_INLINE void interleave(const PanelSource& s, int64_t quad, int64_t rows, __mmask64 columns, __m512i flip,
                           int8_t* out) {
  const auto row = [&](int64_t i) __attribute__((always_inline)) {
    const __mmask64 mask = i < rows ? columns : 0;
    const uint8_t* p = s.data + (4 * quad + i) * s.row_stride;
    return _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, p), flip));
  };
  const __m512i r0 = row(0), r1 = row(1), r2 = row(2), r3 = row(3);
  const __m512i low01 = _mm512_unpacklo_epi8(r0, r1), high01 = _mm512_unpackhi_epi8(r0, r1);
  const __m512i low23 = _mm512_unpacklo_epi8(r2, r3), high23 = _mm512_unpackhi_epi8(r2, r3);
  __m512i a = _mm512_unpacklo_epi16(low01, low23), b = _mm512_unpackhi_epi16(low01, low23);
  __m512i c = _mm512_unpacklo_epi16(high01, high23), d = _mm512_unpackhi_epi16(high01, high23);
  transpose_lanes(a, b, c, d);
  _mm512_store_si512(out, a);
  _mm512_store_si512(out + 64, b);
  _mm512_store_si512(out + 128, c);
  _mm512_store_si512(out + 192, d);
}

// 16 columns, k [k0, k0 + 64), whose k lie side by side: up to 16 quads, kQuadBytes apart.
// `columns` of the 16 exist.
void transpose(const PanelSource& s, int64_t first, int64_t columns, int64_t k0, int64_t quads, __m512i flip,
               int8_t* out) {
  const __mmask64 mask = first_bytes(s.k - k0);
  const uint8_t* p = s.data + first * s.column_stride + k0;
  __m512i v[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    const __mmask64 m = i < columns ? mask : 0;
    v[i] =
        _mm512_maskz_mov_epi8(m, _mm512_xor_si512(_mm512_maskz_loadu_epi8(m, p + i * s.column_stride), flip));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) transpose_in_lanes(v[i], v[i + 1], v[i + 2], v[i + 3]);
  // Lane l of vector 4 j + i: word 4 l + i of columns 4 j to 4 j + 3.
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) transpose_lanes(v[i], v[4 + i], v[8 + i], v[12 + i]);
#pragma GCC unroll 16
  for (int q = 0; q < 16; ++q)
    if (q < quads) _mm512_store_si512(out + q * kQuadBytes, v[q]);
}

}  // namespace

void pack_panel__avx512(const PanelSource& s, int64_t quads, int8_t* panel) {
  const __m512i flip = _mm512_set1_epi8(s.is_unsigned ? static_cast<char>(0x80) : 0);
  if (s.column_stride == 1) {
    const __mmask64 columns = first_bytes(s.columns);
    const int64_t whole = whole_quads(s, quads);
    for (int64_t q = 0; q < whole; ++q) interleave(s, q, 4, columns, flip, panel + q * kQuadBytes);
    for (int64_t q = whole; q < quads; ++q)
      interleave(s, q, s.k - 4 * q, columns, flip, panel + q * kQuadBytes);
    return;
  }
  for (int64_t c = 0; c < kPanelColumns; c += 16)
    for (int64_t q = 0; q < quads; q += 16)
      transpose(s, c, s.columns - c, 4 * q, quads - q, flip, panel + q * kQuadBytes + 4 * c);
}

}  // namespace tae::kernels
