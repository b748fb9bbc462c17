// vec.h on SSE2, the x86-64 baseline: 4 lanes, tails by copies. Include vec.h instead.
#pragma once

#include <emmintrin.h>

#include <cstdint>
#include <cstring>

#define TAE_VEC [[gnu::always_inline]] inline

namespace tae::kernels {
namespace {

using VF = __m128;
using VI = __m128i;
using VMask = __m128;
constexpr int kLanes = 4;
constexpr bool kHasFma = false;

struct Full {};
struct Part {
  explicit Part(int64_t count) : n(count) {}
  int64_t n;
};

TAE_VEC VF set1(float x) { return _mm_set1_ps(x); }
TAE_VEC VI set1(int32_t x) { return _mm_set1_epi32(x); }
TAE_VEC VF as_float(VI x) { return _mm_castsi128_ps(x); }
TAE_VEC VI as_int(VF x) { return _mm_castps_si128(x); }

TAE_VEC VF add(VF a, VF b) { return _mm_add_ps(a, b); }
TAE_VEC VF sub(VF a, VF b) { return _mm_sub_ps(a, b); }
TAE_VEC VF mul(VF a, VF b) { return _mm_mul_ps(a, b); }
TAE_VEC VF div(VF a, VF b) { return _mm_div_ps(a, b); }
TAE_VEC VF min(VF a, VF b) { return _mm_min_ps(a, b); }
TAE_VEC VF max(VF a, VF b) { return _mm_max_ps(a, b); }
TAE_VEC VF to_float(VI x) { return _mm_cvtepi32_ps(x); }
TAE_VEC VI to_int(VF x) { return _mm_cvtps_epi32(x); }

TAE_VEC VI add(VI a, VI b) { return _mm_add_epi32(a, b); }
TAE_VEC VI sub(VI a, VI b) { return _mm_sub_epi32(a, b); }
TAE_VEC VI mul(VI a, VI b) {  // pmulld is SSE4.1
  const __m128i even = _mm_mul_epu32(a, b);
  const __m128i odd = _mm_mul_epu32(_mm_srli_epi64(a, 32), _mm_srli_epi64(b, 32));
  return _mm_unpacklo_epi32(_mm_shuffle_epi32(even, 0x08), _mm_shuffle_epi32(odd, 0x08));
}
TAE_VEC VI and_bits(VI a, VI b) { return _mm_and_si128(a, b); }
TAE_VEC VI or_bits(VI a, VI b) { return _mm_or_si128(a, b); }
template <int kBits>
TAE_VEC VI shift_left(VI x) {
  return _mm_slli_epi32(x, kBits);
}
template <int kBits>
TAE_VEC VI shift_right(VI x) {
  return _mm_srli_epi32(x, kBits);
}

// a * b + c, rounded once, as the instruction of later levels.
// Two lanes in f64: the product is exact, the sum is rounded to odd (its error goes into
// the last bit), and so the rounding to f32 is the only one that shows (Boldo and
// Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
TAE_VEC __m128d sum_to_odd(__m128d product, __m128d c) {
  const __m128d sum = _mm_add_pd(product, c);
  const __m128d of_c = _mm_sub_pd(sum, product);
  const __m128d error = _mm_add_pd(_mm_sub_pd(product, _mm_sub_pd(sum, of_c)), _mm_sub_pd(c, of_c));
  const __m128d zero = _mm_setzero_pd();
  const __m128i above = _mm_castpd_si128(_mm_cmplt_pd(zero, error));  // false for NaN
  const __m128i below = _mm_castpd_si128(_mm_cmplt_pd(error, zero));
  const __m128i negative = _mm_castpd_si128(_mm_cmplt_pd(sum, zero));
  const __m128i bits = _mm_castpd_si128(sum);
  const __m128i one = _mm_set1_epi64x(1);
  const __m128i even = _mm_sub_epi64(_mm_and_si128(bits, one), one);  // all ones when it is
  // The truncated magnitude is one step lower when the error points to zero.
  const __m128i toward_zero = _mm_or_si128(_mm_and_si128(negative, above), _mm_andnot_si128(negative, below));
  const __m128i inexact = _mm_and_si128(_mm_or_si128(above, below), even);
  const __m128i down = _mm_and_si128(inexact, toward_zero);                       // -1 or 0
  const __m128i up = _mm_and_si128(_mm_andnot_si128(toward_zero, inexact), one);  // 1 or 0
  return _mm_castsi128_pd(_mm_add_epi64(bits, _mm_add_epi64(down, up)));
}
TAE_VEC VF fma(VF a, VF b, VF c) {
  const __m128d low = sum_to_odd(_mm_mul_pd(_mm_cvtps_pd(a), _mm_cvtps_pd(b)), _mm_cvtps_pd(c));
  const __m128d high =
      sum_to_odd(_mm_mul_pd(_mm_cvtps_pd(_mm_movehl_ps(a, a)), _mm_cvtps_pd(_mm_movehl_ps(b, b))),
                 _mm_cvtps_pd(_mm_movehl_ps(c, c)));
  return _mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high));
}

TAE_VEC VMask less(VF a, VF b) { return _mm_cmplt_ps(a, b); }
TAE_VEC VMask is_nan(VF x) { return _mm_cmpunord_ps(x, x); }
TAE_VEC VMask unordered(VF a, VF b) { return _mm_cmpunord_ps(a, b); }
TAE_VEC VMask mask_or(VMask a, VMask b) { return _mm_or_ps(a, b); }
TAE_VEC VMask no_lane() { return _mm_setzero_ps(); }
TAE_VEC bool any(VMask m) { return _mm_movemask_ps(m) != 0; }
TAE_VEC VF select(VMask m, VF a, VF b) { return _mm_or_ps(_mm_and_ps(m, a), _mm_andnot_ps(m, b)); }
TAE_VEC VI select(VMask m, VI a, VI b) { return as_int(select(m, as_float(a), as_float(b))); }

TAE_VEC float reduce_min(VF v) {
  v = _mm_min_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_min_ss(v, _mm_shuffle_ps(v, v, 1)));
}
TAE_VEC float reduce_max(VF v) {
  v = _mm_max_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps(v, v, 1)));
}
TAE_VEC int32_t reduce_add(VI v) {
  v = _mm_add_epi32(v, _mm_unpackhi_epi64(v, v));
  return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 1)));
}

TAE_VEC VF load(const float* p, Full) { return _mm_loadu_ps(p); }
TAE_VEC VF load(const float* p, Part t) {
  float copy[kLanes] = {};
  for (int64_t i = 0; i < t.n; ++i) copy[i] = p[i];
  return load(copy, Full{});
}
TAE_VEC VI load(const int32_t* p, Full) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
TAE_VEC VI load(const int32_t* p, Part t) {
  int32_t copy[kLanes] = {};
  for (int64_t i = 0; i < t.n; ++i) copy[i] = p[i];
  return load(copy, Full{});
}
TAE_VEC VI load_u8(const uint8_t* p, Full) {
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  const __m128i zero = _mm_setzero_si128();
  return _mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(word), zero), zero);
}
TAE_VEC VI load_u8(const uint8_t* p, Part t) {
  uint8_t copy[kLanes] = {};
  for (int64_t i = 0; i < t.n; ++i) copy[i] = p[i];
  return load_u8(copy, Full{});
}
TAE_VEC VI load_s8(const int8_t* p, Full) {
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  const __m128i bytes = _mm_cvtsi32_si128(word);
  const __m128i words = _mm_unpacklo_epi8(bytes, bytes);
  return _mm_srai_epi32(_mm_unpacklo_epi16(words, words), 24);
}
TAE_VEC VI load_s8(const int8_t* p, Part t) {
  int8_t copy[kLanes] = {};
  for (int64_t i = 0; i < t.n; ++i) copy[i] = p[i];
  return load_s8(copy, Full{});
}
TAE_VEC VI load_u16(const uint16_t* p, Full) {
  return _mm_unpacklo_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), _mm_setzero_si128());
}
TAE_VEC VI load_u16(const uint16_t* p, Part t) {
  uint16_t copy[kLanes] = {};
  for (int64_t i = 0; i < t.n; ++i) copy[i] = p[i];
  return load_u16(copy, Full{});
}

TAE_VEC void store(float* p, VF x, Full) { _mm_storeu_ps(p, x); }
TAE_VEC void store(float* p, VF x, Part t) {
  float copy[kLanes];
  store(copy, x, Full{});
  for (int64_t i = 0; i < t.n; ++i) p[i] = copy[i];
}
// The low 8 or 16 bits of each lane.
TAE_VEC void store_low8(uint8_t* p, VI x, Full) {
  const __m128i low = _mm_and_si128(x, _mm_set1_epi32(0xff));
  const __m128i words = _mm_packs_epi32(low, low);
  const int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
  std::memcpy(p, &bytes, sizeof bytes);
}
TAE_VEC void store_low8(uint8_t* p, VI x, Part t) {
  uint8_t copy[kLanes];
  store_low8(copy, x, Full{});
  for (int64_t i = 0; i < t.n; ++i) p[i] = copy[i];
}
TAE_VEC void store_low16(uint16_t* p, VI x, Full) {
  // Sign-extended first, so that the signed pack keeps the low half.
  const __m128i low = _mm_srai_epi32(_mm_slli_epi32(x, 16), 16);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi32(low, low));
}
TAE_VEC void store_low16(uint16_t* p, VI x, Part t) {
  uint16_t copy[kLanes];
  store_low16(copy, x, Full{});
  for (int64_t i = 0; i < t.n; ++i) p[i] = copy[i];
}

// 4 vectors of quantized lanes to bytes. Lanes beyond int16 saturate, zero_point
// (int16 lanes) is added with saturation, the sum saturates to u8.
using VBytes = __m128i;
TAE_VEC VBytes pack_u8(VI a, VI b, VI c, VI d, VI zero_point) {
  const __m128i ab = _mm_adds_epi16(_mm_packs_epi32(a, b), zero_point);
  const __m128i cd = _mm_adds_epi16(_mm_packs_epi32(c, d), zero_point);
  return _mm_packus_epi16(ab, cd);
}
TAE_VEC VBytes pack_lanes(VI a, VI b, VI c, VI d, VI zero_point) { return pack_u8(a, b, c, d, zero_point); }
TAE_VEC VBytes from_lanes(VBytes x) { return x; }
TAE_VEC VBytes to_lanes(VBytes x) { return x; }
// 16-bit lanes in two vectors, as unpacked bytes lie, plus a + b of each byte.
TAE_VEC void add_to_words(VBytes a, VBytes b, VI& low, VI& high) {
  const __m128i zero = _mm_setzero_si128();
  const __m128i low_sum = _mm_add_epi16(_mm_unpacklo_epi8(a, zero), _mm_unpacklo_epi8(b, zero));
  const __m128i high_sum = _mm_add_epi16(_mm_unpackhi_epi8(a, zero), _mm_unpackhi_epi8(b, zero));
  low = _mm_add_epi16(low, low_sum);
  high = _mm_add_epi16(high, high_sum);
}
// Words w of 16 bits as the floats 2^23 + w, by the bits of their mantissas.
TAE_VEC void expand_words(VI low, VI high, VF (&x)[4]) {
  const __m128i exponent = _mm_set1_epi16(0x4b00);
  x[0] = as_float(_mm_unpacklo_epi16(low, exponent));
  x[1] = as_float(_mm_unpackhi_epi16(low, exponent));
  x[2] = as_float(_mm_unpacklo_epi16(high, exponent));
  x[3] = as_float(_mm_unpackhi_epi16(high, exponent));
}
// The inverse of pack_lanes: byte u as the float 2^23 + u.
TAE_VEC void expand_lanes(VBytes u, VF (&x)[4]) {
  const __m128i zero = _mm_setzero_si128();
  expand_words(_mm_unpacklo_epi8(u, zero), _mm_unpackhi_epi8(u, zero), x);
}
// 16-bit lanes: round(a * b / 2^15), ties up, but for -2^15 * -2^15; a sum that saturates.
TAE_VEC VI mul_words(VI a, VI b) {
  const __m128i low = _mm_mullo_epi16(a, b), high = _mm_mulhi_epi16(a, b);
  const __m128i down = _mm_or_si128(_mm_slli_epi16(high, 1), _mm_srli_epi16(low, 15));
  return _mm_add_epi16(down, _mm_srli_epi16(_mm_slli_epi16(low, 1), 15));
}
TAE_VEC VI add_words(VI a, VI b) { return _mm_adds_epi16(a, b); }
// Bytes as the high halves of 16-bit lanes; lanes to bytes in the same order, saturated to u8.
TAE_VEC void spread_bytes(VBytes x, VI& low, VI& high) {
  const __m128i zero = _mm_setzero_si128();
  low = _mm_unpacklo_epi8(zero, x);
  high = _mm_unpackhi_epi8(zero, x);
}
// 4 vectors of integers in the order of pack_lanes as 2 of 16-bit lanes, saturated.
TAE_VEC VI narrow(VI a, VI b) { return _mm_packs_epi32(a, b); }
TAE_VEC VBytes pack_words(VI low, VI high) { return _mm_packus_epi16(low, high); }
TAE_VEC VI set1_16(int32_t x) { return _mm_set1_epi16(static_cast<int16_t>(x)); }
TAE_VEC VBytes set1_8(int32_t x) { return _mm_set1_epi8(static_cast<char>(x)); }
TAE_VEC VBytes max_u8(VBytes a, VBytes b) { return _mm_max_epu8(a, b); }
TAE_VEC VBytes clamp_u8(VBytes x, VBytes lo, VBytes hi) { return _mm_min_epu8(_mm_max_epu8(x, lo), hi); }
TAE_VEC VBytes xor_bytes(VBytes a, VBytes b) { return _mm_xor_si128(a, b); }
TAE_VEC VBytes load_bytes(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
TAE_VEC void store_bytes(void* p, VBytes x) { _mm_storeu_si128(static_cast<__m128i*>(p), x); }
// Past the caches, to an aligned place.
TAE_VEC void stream_bytes(void* p, VBytes x) { _mm_stream_si128(static_cast<__m128i*>(p), x); }
// The first n < 4 * kLanes bytes.
TAE_VEC VBytes load_bytes(const void* p, int64_t n) {
  alignas(16) uint8_t copy[4 * kLanes] = {};
  if (n > 0) std::memcpy(copy, p, static_cast<size_t>(n));  // an empty row is null
  return load_bytes(copy);
}
TAE_VEC void store_bytes(void* p, VBytes x, int64_t n) {
  alignas(16) uint8_t copy[4 * kLanes];
  store_bytes(copy, x);
  std::memcpy(p, copy, static_cast<size_t>(n));
}
// Zeroes bytes [n, end): lanes beyond a tail hold the zero point, not 0.
TAE_VEC VBytes keep_bytes(VBytes x, int64_t n) {
  alignas(16) uint8_t copy[4 * kLanes] = {};
  store_bytes(copy, x, n);
  return load_bytes(copy);
}
// Partial sums of bytes in 32-bit lanes, at most 8 * 255 each.
TAE_VEC VI sum_bytes(VI total, VBytes x) {
  return _mm_add_epi32(total, _mm_sad_epu8(x, _mm_setzero_si128()));
}
// Adds u * (u - kSquareShift) of all bytes u to 32-bit lanes, each at most 4 * 255^2.
constexpr int64_t kSquareShift = 0;
TAE_VEC VI sum_squares(VI total, VBytes x) {
  const __m128i zero = _mm_setzero_si128();
  const __m128i low = _mm_unpacklo_epi8(x, zero), high = _mm_unpackhi_epi8(x, zero);
  return _mm_add_epi32(total, _mm_add_epi32(_mm_madd_epi16(low, low), _mm_madd_epi16(high, high)));
}

}  // namespace
}  // namespace tae::kernels
