// Panels of activations: bytes of 4 consecutive k of a column side by side. SSE2 is in
// every x86-64.
#include "kernels/matmul_pack.h"

#include <emmintrin.h>

#include <cstring>

namespace tae::kernels {
namespace {

__m128i load_16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
void store_16(int8_t* p, __m128i x) { _mm_store_si128(reinterpret_cast<__m128i*>(p), x); }

// Four k of 16 columns that lie side by side: 64 bytes at out.
void interleave(const uint8_t* row, int64_t stride, __m128i flip, int8_t* out) {
  const __m128i r0 = _mm_xor_si128(load_16(row), flip);
  const __m128i r1 = _mm_xor_si128(load_16(row + stride), flip);
  const __m128i r2 = _mm_xor_si128(load_16(row + 2 * stride), flip);
  const __m128i r3 = _mm_xor_si128(load_16(row + 3 * stride), flip);
  const __m128i lo01 = _mm_unpacklo_epi8(r0, r1), hi01 = _mm_unpackhi_epi8(r0, r1);
  const __m128i lo23 = _mm_unpacklo_epi8(r2, r3), hi23 = _mm_unpackhi_epi8(r2, r3);
  store_16(out, _mm_unpacklo_epi16(lo01, lo23));
  store_16(out + 16, _mm_unpackhi_epi16(lo01, lo23));
  store_16(out + 32, _mm_unpacklo_epi16(hi01, hi23));
  store_16(out + 48, _mm_unpackhi_epi16(hi01, hi23));
}

// 16 k of four columns whose k lie side by side: 4 quads, kQuadBytes apart.
void transpose(const uint8_t* column, int64_t stride, __m128i flip, int8_t* out) {
  const __m128i c0 = _mm_xor_si128(load_16(column), flip);
  const __m128i c1 = _mm_xor_si128(load_16(column + stride), flip);
  const __m128i c2 = _mm_xor_si128(load_16(column + 2 * stride), flip);
  const __m128i c3 = _mm_xor_si128(load_16(column + 3 * stride), flip);
  const __m128i lo01 = _mm_unpacklo_epi32(c0, c1), hi01 = _mm_unpackhi_epi32(c0, c1);
  const __m128i lo23 = _mm_unpacklo_epi32(c2, c3), hi23 = _mm_unpackhi_epi32(c2, c3);
  store_16(out, _mm_unpacklo_epi64(lo01, lo23));
  store_16(out + kQuadBytes, _mm_unpackhi_epi64(lo01, lo23));
  store_16(out + 2 * kQuadBytes, _mm_unpacklo_epi64(hi01, hi23));
  store_16(out + 3 * kQuadBytes, _mm_unpackhi_epi64(hi01, hi23));
}

}  // namespace

void pack_quads(const PanelSource& s, int64_t begin, int64_t end, int8_t* panel) {
  const uint8_t flip = s.is_unsigned ? 0x80 : 0;
  for (int64_t q = begin; q < end; ++q) {
    int8_t* out = panel + q * kQuadBytes;
    std::memset(out, 0, static_cast<size_t>(kQuadBytes));
    for (int64_t i = 0; i < 4 && 4 * q + i < s.k; ++i)
      for (int64_t c = 0; c < s.columns; ++c)
        out[4 * c + i] = static_cast<int8_t>(s.data[(4 * q + i) * s.row_stride + c * s.column_stride] ^ flip);
  }
}

void pack_panel__sse2(const PanelSource& s, int64_t quads, int8_t* panel) {
  const bool rows = s.column_stride == 1;
  // Whole blocks only; a panel with an end in its columns is packed by elements.
  const int64_t most = s.columns < kPanelColumns ? 0 : whole_quads(s, quads);
  const int64_t whole = rows ? most : most / 4 * 4;
  const __m128i flip = _mm_set1_epi8(s.is_unsigned ? static_cast<char>(0x80) : 0);
  if (rows) {
    for (int64_t q = 0; q < whole; ++q)
      for (int64_t c = 0; c < kPanelColumns; c += 16)
        interleave(s.data + 4 * q * s.row_stride + c, s.row_stride, flip, panel + q * kQuadBytes + 4 * c);
  } else {
    for (int64_t c = 0; c < kPanelColumns; c += 4)
      for (int64_t q = 0; q < whole; q += 4)
        transpose(s.data + c * s.column_stride + 4 * q, s.column_stride, flip,
                  panel + q * kQuadBytes + 4 * c);
  }
  pack_quads(s, whole, quads, panel);
}

void pack_panel(const PanelSource& source, int64_t quads, int8_t* panel, Isa isa) {
  if (isa >= Isa::avx512) {
    pack_panel__avx512(source, quads, panel);
  } else {
    pack_panel__sse2(source, quads, panel);
  }
}

}  // namespace tae::kernels
