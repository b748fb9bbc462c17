// vec.h on AVX512 F, BW, DQ, VL: 16 lanes, tails by mask. Include vec.h instead.
#pragma once

// GCC 12 takes the undefined pass-through operands of avx512fintrin.h for variables
// that we forgot to set (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>

#include <cstdint>

#define TAE_VEC [[gnu::always_inline]] inline

namespace tae::kernels {
namespace {

using VF = __m512;
using VI = __m512i;
using VMask = __mmask16;
constexpr int kLanes = 16;
constexpr bool kHasFma = true;

struct Full {};
struct Part {
  explicit Part(int64_t n) : mask(static_cast<__mmask16>((1u << n) - 1)) {}
  __mmask16 mask;
};

TAE_VEC VF set1(float x) { return _mm512_set1_ps(x); }
TAE_VEC VI set1(int32_t x) { return _mm512_set1_epi32(x); }
TAE_VEC VF as_float(VI x) { return _mm512_castsi512_ps(x); }
TAE_VEC VI as_int(VF x) { return _mm512_castps_si512(x); }

TAE_VEC VF add(VF a, VF b) { return _mm512_add_ps(a, b); }
TAE_VEC VF sub(VF a, VF b) { return _mm512_sub_ps(a, b); }
TAE_VEC VF mul(VF a, VF b) { return _mm512_mul_ps(a, b); }
TAE_VEC VF div(VF a, VF b) { return _mm512_div_ps(a, b); }
TAE_VEC VF min(VF a, VF b) { return _mm512_min_ps(a, b); }
TAE_VEC VF max(VF a, VF b) { return _mm512_max_ps(a, b); }
TAE_VEC VF fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
TAE_VEC VF to_float(VI x) { return _mm512_cvtepi32_ps(x); }
TAE_VEC VI to_int(VF x) { return _mm512_cvtps_epi32(x); }

TAE_VEC VI add(VI a, VI b) { return _mm512_add_epi32(a, b); }
TAE_VEC VI sub(VI a, VI b) { return _mm512_sub_epi32(a, b); }
TAE_VEC VI mul(VI a, VI b) { return _mm512_mullo_epi32(a, b); }
TAE_VEC VI and_bits(VI a, VI b) { return _mm512_and_si512(a, b); }
TAE_VEC VI or_bits(VI a, VI b) { return _mm512_or_si512(a, b); }
template <int kBits>
TAE_VEC VI shift_left(VI x) {
  return _mm512_slli_epi32(x, kBits);
}
template <int kBits>
TAE_VEC VI shift_right(VI x) {
  return _mm512_srli_epi32(x, kBits);
}

TAE_VEC VMask less(VF a, VF b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
TAE_VEC VMask is_nan(VF x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); }
TAE_VEC VMask unordered(VF a, VF b) { return _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q); }
TAE_VEC VMask mask_or(VMask a, VMask b) { return static_cast<VMask>(a | b); }
TAE_VEC VMask no_lane() { return 0; }
TAE_VEC bool any(VMask m) { return m != 0; }
TAE_VEC VF select(VMask m, VF a, VF b) { return _mm512_mask_blend_ps(m, b, a); }
TAE_VEC VI select(VMask m, VI a, VI b) { return _mm512_mask_blend_epi32(m, b, a); }

TAE_VEC float reduce_min(VF x) { return _mm512_reduce_min_ps(x); }
TAE_VEC float reduce_max(VF x) { return _mm512_reduce_max_ps(x); }
TAE_VEC int32_t reduce_add(VI x) { return _mm512_reduce_add_epi32(x); }

TAE_VEC VF load(const float* p, Full) { return _mm512_loadu_ps(p); }
TAE_VEC VF load(const float* p, Part t) { return _mm512_maskz_loadu_ps(t.mask, p); }
TAE_VEC VI load(const int32_t* p, Full) { return _mm512_loadu_si512(p); }
TAE_VEC VI load(const int32_t* p, Part t) { return _mm512_maskz_loadu_epi32(t.mask, p); }
TAE_VEC VI load_u8(const uint8_t* p, Full) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
TAE_VEC VI load_u8(const uint8_t* p, Part t) { return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(t.mask, p)); }
TAE_VEC VI load_s8(const int8_t* p, Full) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
TAE_VEC VI load_s8(const int8_t* p, Part t) { return _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(t.mask, p)); }
TAE_VEC VI load_u16(const uint16_t* p, Full) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
TAE_VEC VI load_u16(const uint16_t* p, Part t) {
  return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(t.mask, p));
}

TAE_VEC void store(float* p, VF x, Full) { _mm512_storeu_ps(p, x); }
TAE_VEC void store(float* p, VF x, Part t) { _mm512_mask_storeu_ps(p, t.mask, x); }
// The low 8 or 16 bits of each lane.
TAE_VEC void store_low8(uint8_t* p, VI x, Full) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x));
}
TAE_VEC void store_low8(uint8_t* p, VI x, Part t) {
  _mm_mask_storeu_epi8(p, t.mask, _mm512_cvtepi32_epi8(x));
}
TAE_VEC void store_low16(uint16_t* p, VI x, Full) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(x));
}
TAE_VEC void store_low16(uint16_t* p, VI x, Part t) {
  _mm256_mask_storeu_epi16(p, t.mask, _mm512_cvtepi32_epi16(x));
}

// 4 vectors of quantized lanes to bytes. Lanes beyond int16 saturate, zero_point
// (int16 lanes) is added with saturation, the sum saturates to u8.
using VBytes = __m512i;
// The packs work inside 128-bit lanes: 4-byte groups come out as a0 b0 c0 d0 a1 ...
TAE_VEC VBytes pack_lanes(VI a, VI b, VI c, VI d, VI zero_point) {
  const __m512i ab = _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero_point);
  const __m512i cd = _mm512_adds_epi16(_mm512_packs_epi32(c, d), zero_point);
  return _mm512_packus_epi16(ab, cd);
}
// Bytes from that order to the order of memory, and back: a transposition of 4 x 4 pieces is both.
TAE_VEC VBytes from_lanes(VBytes x) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, x);
}
TAE_VEC VBytes to_lanes(VBytes x) { return from_lanes(x); }
TAE_VEC VBytes pack_u8(VI a, VI b, VI c, VI d, VI zero_point) {
  return from_lanes(pack_lanes(a, b, c, d, zero_point));
}
// 16-bit lanes in two vectors, as unpacked bytes lie, plus a + b of each byte.
TAE_VEC void add_to_words(VBytes a, VBytes b, VI& low, VI& high) {
  const __m512i ones = _mm512_set1_epi8(1);
  low = _mm512_add_epi16(low, _mm512_maddubs_epi16(_mm512_unpacklo_epi8(a, b), ones));
  high = _mm512_add_epi16(high, _mm512_maddubs_epi16(_mm512_unpackhi_epi8(a, b), ones));
}
// Words w of 16 bits as the floats 2^23 + w, by the bits of their mantissas.
TAE_VEC void expand_words(VI low, VI high, VF (&x)[4]) {
  const __m512i exponent = _mm512_set1_epi16(0x4b00);
  x[0] = as_float(_mm512_unpacklo_epi16(low, exponent));
  x[1] = as_float(_mm512_unpackhi_epi16(low, exponent));
  x[2] = as_float(_mm512_unpacklo_epi16(high, exponent));
  x[3] = as_float(_mm512_unpackhi_epi16(high, exponent));
}
// The inverse of pack_lanes: byte u as the float 2^23 + u, by the bits of its mantissa.
TAE_VEC void expand_lanes(VBytes u, VF (&x)[4]) {
  const __m512i exponent = _mm512_set1_epi32(0x4b000000);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m128i bytes = _mm_setr_epi32(4 * j, 4 * j + 1, 4 * j + 2, 4 * j + 3);
    x[j] = as_float(_mm512_mask_shuffle_epi8(exponent, 0x1111111111111111, u, _mm512_broadcast_i32x4(bytes)));
  }
}
// 16-bit lanes: round(a * b / 2^15), ties up, but for -2^15 * -2^15; a sum that saturates.
TAE_VEC VI mul_words(VI a, VI b) { return _mm512_mulhrs_epi16(a, b); }
TAE_VEC VI add_words(VI a, VI b) { return _mm512_adds_epi16(a, b); }
// Bytes as the high halves of 16-bit lanes; lanes to bytes in the same order, saturated to u8.
TAE_VEC void spread_bytes(VBytes x, VI& low, VI& high) {
  const __m512i zero = _mm512_setzero_si512();
  low = _mm512_unpacklo_epi8(zero, x);
  high = _mm512_unpackhi_epi8(zero, x);
}
// 4 vectors of integers in the order of pack_lanes as 2 of 16-bit lanes, saturated.
TAE_VEC VI narrow(VI a, VI b) { return _mm512_packs_epi32(a, b); }
TAE_VEC VBytes pack_words(VI low, VI high) { return _mm512_packus_epi16(low, high); }
TAE_VEC VI set1_16(int32_t x) { return _mm512_set1_epi16(static_cast<int16_t>(x)); }
TAE_VEC VBytes set1_8(int32_t x) { return _mm512_set1_epi8(static_cast<char>(x)); }
TAE_VEC VBytes max_u8(VBytes a, VBytes b) { return _mm512_max_epu8(a, b); }
TAE_VEC VBytes clamp_u8(VBytes x, VBytes lo, VBytes hi) {
  return _mm512_min_epu8(_mm512_max_epu8(x, lo), hi);
}
TAE_VEC VBytes xor_bytes(VBytes a, VBytes b) { return _mm512_xor_si512(a, b); }
TAE_VEC VBytes load_bytes(const void* p) { return _mm512_loadu_si512(p); }
TAE_VEC void store_bytes(void* p, VBytes x) { _mm512_storeu_si512(p, x); }
// Past the caches, to an aligned place.
TAE_VEC void stream_bytes(void* p, VBytes x) { _mm512_stream_si512(static_cast<__m512i*>(p), x); }
// The first n < 4 * kLanes bytes.
TAE_VEC VBytes load_bytes(const void* p, int64_t n) {
  return _mm512_maskz_loadu_epi8(_bzhi_u64(~0ull, static_cast<unsigned>(n)), p);
}
TAE_VEC void store_bytes(void* p, VBytes x, int64_t n) {
  _mm512_mask_storeu_epi8(p, _bzhi_u64(~0ull, static_cast<unsigned>(n)), x);
}
// Zeroes bytes [n, end): lanes beyond a tail hold the zero point, not 0.
TAE_VEC VBytes keep_bytes(VBytes x, int64_t n) {
  return _mm512_maskz_mov_epi8(_bzhi_u64(~0ull, static_cast<unsigned>(n)), x);
}
TAE_VEC int64_t reduce_sum32(VI x) {  // exact
  return _mm512_reduce_add_epi64(
      _mm512_add_epi64(_mm512_srai_epi64(x, 32), _mm512_srai_epi64(_mm512_slli_epi64(x, 32), 32)));
}
#if defined(__AVX512VNNI__)
// Adds products of u8 and s8, 4 to a lane. By hand: GCC 12 copies sums around the intrinsic in loops.
TAE_VEC VI add_products(VI total, VBytes u, VBytes s) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(total) : "v"(u), "v"(s));
  return total;
}
#endif
// Partial sums of bytes in 32-bit lanes, at most 8 * 255 each.
#if defined(__AVX512VNNI__)
TAE_VEC VI sum_bytes(VI total, VBytes x) { return add_products(total, x, _mm512_set1_epi8(1)); }
#else
TAE_VEC VI sum_bytes(VI total, VBytes x) {
  return _mm512_add_epi32(total, _mm512_sad_epu8(x, _mm512_setzero_si512()));
}
#endif
// Adds u * (u - kSquareShift) of all bytes u to 32-bit lanes, each at most 4 * 255^2.
#if defined(__AVX512VNNI__)
constexpr int64_t kSquareShift = 128;
TAE_VEC VI sum_squares(VI total, VBytes x) {
  return add_products(total, x, _mm512_xor_si512(x, _mm512_set1_epi8(-128)));
}
#else
constexpr int64_t kSquareShift = 0;
TAE_VEC VI sum_squares(VI total, VBytes x) {
  const __m512i zero = _mm512_setzero_si512();
  const __m512i low = _mm512_unpacklo_epi8(x, zero), high = _mm512_unpackhi_epi8(x, zero);
  return _mm512_add_epi32(total,
                          _mm512_add_epi32(_mm512_madd_epi16(low, low), _mm512_madd_epi16(high, high)));
}
#endif

}  // namespace
}  // namespace tae::kernels
