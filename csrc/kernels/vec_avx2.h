// vec.h on AVX2 + FMA: 8 lanes; 32-bit tails by maskload, narrower ones by a copy.
// Include vec.h instead.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define TAE_VEC [[gnu::always_inline]] inline

namespace tae::kernels {
namespace {

using VF = __m256;
using VI = __m256i;
using VMask = __m256;
constexpr int kLanes = 8;
constexpr bool kHasFma = true;

struct Full {};
struct Part {
  explicit Part(int64_t count)
      : n(count),
        mask(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                                _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))) {}
  int64_t n;
  __m256i mask;
};

TAE_VEC VF set1(float x) { return _mm256_set1_ps(x); }
TAE_VEC VI set1(int32_t x) { return _mm256_set1_epi32(x); }
TAE_VEC VF as_float(VI x) { return _mm256_castsi256_ps(x); }
TAE_VEC VI as_int(VF x) { return _mm256_castps_si256(x); }

TAE_VEC VF add(VF a, VF b) { return _mm256_add_ps(a, b); }
TAE_VEC VF sub(VF a, VF b) { return _mm256_sub_ps(a, b); }
TAE_VEC VF mul(VF a, VF b) { return _mm256_mul_ps(a, b); }
TAE_VEC VF div(VF a, VF b) { return _mm256_div_ps(a, b); }
TAE_VEC VF min(VF a, VF b) { return _mm256_min_ps(a, b); }
TAE_VEC VF max(VF a, VF b) { return _mm256_max_ps(a, b); }
TAE_VEC VF fma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
TAE_VEC VF to_float(VI x) { return _mm256_cvtepi32_ps(x); }
TAE_VEC VI to_int(VF x) { return _mm256_cvtps_epi32(x); }

TAE_VEC VI add(VI a, VI b) { return _mm256_add_epi32(a, b); }
TAE_VEC VI sub(VI a, VI b) { return _mm256_sub_epi32(a, b); }
TAE_VEC VI mul(VI a, VI b) { return _mm256_mullo_epi32(a, b); }
TAE_VEC VI and_bits(VI a, VI b) { return _mm256_and_si256(a, b); }
TAE_VEC VI or_bits(VI a, VI b) { return _mm256_or_si256(a, b); }
template <int kBits>
TAE_VEC VI shift_left(VI x) {
  return _mm256_slli_epi32(x, kBits);
}
template <int kBits>
TAE_VEC VI shift_right(VI x) {
  return _mm256_srli_epi32(x, kBits);
}

TAE_VEC VMask less(VF a, VF b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
TAE_VEC VMask is_nan(VF x) { return _mm256_cmp_ps(x, x, _CMP_UNORD_Q); }
TAE_VEC VMask unordered(VF a, VF b) { return _mm256_cmp_ps(a, b, _CMP_UNORD_Q); }
TAE_VEC VMask mask_or(VMask a, VMask b) { return _mm256_or_ps(a, b); }
TAE_VEC VMask no_lane() { return _mm256_setzero_ps(); }
TAE_VEC bool any(VMask m) { return _mm256_movemask_ps(m) != 0; }
TAE_VEC VF select(VMask m, VF a, VF b) { return _mm256_blendv_ps(b, a, m); }
TAE_VEC VI select(VMask m, VI a, VI b) { return as_int(_mm256_blendv_ps(as_float(b), as_float(a), m)); }

TAE_VEC float reduce_min(VF x) {
  __m128 v = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  v = _mm_min_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_min_ss(v, _mm_shuffle_ps(v, v, 1)));
}
TAE_VEC float reduce_max(VF x) {
  __m128 v = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  v = _mm_max_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps(v, v, 1)));
}
TAE_VEC int32_t reduce_add(VI x) {
  __m128i v = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  v = _mm_add_epi32(v, _mm_unpackhi_epi64(v, v));
  return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 1)));
}

TAE_VEC VF load(const float* p, Full) { return _mm256_loadu_ps(p); }
TAE_VEC VF load(const float* p, Part t) { return _mm256_maskload_ps(p, t.mask); }
TAE_VEC VI load(const int32_t* p, Full) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
TAE_VEC VI load(const int32_t* p, Part t) { return _mm256_maskload_epi32(p, t.mask); }
TAE_VEC VI load_u8(const uint8_t* p, Full) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
TAE_VEC VI load_u8(const uint8_t* p, Part t) {
  uint8_t copy[kLanes] = {};
  for (int64_t i = 0; i < t.n; ++i) copy[i] = p[i];
  return load_u8(copy, Full{});
}
TAE_VEC VI load_s8(const int8_t* p, Full) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
TAE_VEC VI load_s8(const int8_t* p, Part t) {
  int8_t copy[kLanes] = {};
  for (int64_t i = 0; i < t.n; ++i) copy[i] = p[i];
  return load_s8(copy, Full{});
}
TAE_VEC VI load_u16(const uint16_t* p, Full) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
TAE_VEC VI load_u16(const uint16_t* p, Part t) {
  uint16_t copy[kLanes] = {};
  for (int64_t i = 0; i < t.n; ++i) copy[i] = p[i];
  return load_u16(copy, Full{});
}

TAE_VEC void store(float* p, VF x, Full) { _mm256_storeu_ps(p, x); }
TAE_VEC void store(float* p, VF x, Part t) { _mm256_maskstore_ps(p, t.mask, x); }
// The low 8 or 16 bits of each lane.
TAE_VEC void store_low8(uint8_t* p, VI x, Full) {
  const __m256i gather = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4,
                                          8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i halves = _mm256_shuffle_epi8(x, gather);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p),
                   _mm_unpacklo_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
}
TAE_VEC void store_low8(uint8_t* p, VI x, Part t) {
  uint8_t copy[kLanes];
  store_low8(copy, x, Full{});
  for (int64_t i = 0; i < t.n; ++i) p[i] = copy[i];
}
TAE_VEC void store_low16(uint16_t* p, VI x, Full) {
  const __m256i low = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
TAE_VEC void store_low16(uint16_t* p, VI x, Part t) {
  uint16_t copy[kLanes];
  store_low16(copy, x, Full{});
  for (int64_t i = 0; i < t.n; ++i) p[i] = copy[i];
}

// 4 vectors of quantized lanes to bytes. Lanes beyond int16 saturate, zero_point
// (int16 lanes) is added with saturation, the sum saturates to u8.
using VBytes = __m256i;
// The packs work inside 128-bit lanes: 4-byte groups come out as a0 b0 c0 d0 a1 ...
TAE_VEC VBytes pack_lanes(VI a, VI b, VI c, VI d, VI zero_point) {
  const __m256i ab = _mm256_adds_epi16(_mm256_packs_epi32(a, b), zero_point);
  const __m256i cd = _mm256_adds_epi16(_mm256_packs_epi32(c, d), zero_point);
  return _mm256_packus_epi16(ab, cd);
}
// Bytes from that order to the order of memory, and back.
TAE_VEC VBytes from_lanes(VBytes x) {
  return _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
TAE_VEC VBytes to_lanes(VBytes x) {
  return _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
}
TAE_VEC VBytes pack_u8(VI a, VI b, VI c, VI d, VI zero_point) {
  return from_lanes(pack_lanes(a, b, c, d, zero_point));
}
// 16-bit lanes in two vectors, as unpacked bytes lie, plus a + b of each byte.
TAE_VEC void add_to_words(VBytes a, VBytes b, VI& low, VI& high) {
  const __m256i ones = _mm256_set1_epi8(1);
  low = _mm256_add_epi16(low, _mm256_maddubs_epi16(_mm256_unpacklo_epi8(a, b), ones));
  high = _mm256_add_epi16(high, _mm256_maddubs_epi16(_mm256_unpackhi_epi8(a, b), ones));
}
// Words w of 16 bits as the floats 2^23 + w, by the bits of their mantissas.
TAE_VEC void expand_words(VI low, VI high, VF (&x)[4]) {
  const __m256i exponent = _mm256_set1_epi16(0x4b00);
  x[0] = as_float(_mm256_unpacklo_epi16(low, exponent));
  x[1] = as_float(_mm256_unpackhi_epi16(low, exponent));
  x[2] = as_float(_mm256_unpacklo_epi16(high, exponent));
  x[3] = as_float(_mm256_unpackhi_epi16(high, exponent));
}
// The inverse of pack_lanes: byte u as the float 2^23 + u.
TAE_VEC void expand_lanes(VBytes u, VF (&x)[4]) {
  const __m256i zero = _mm256_setzero_si256();
  expand_words(_mm256_unpacklo_epi8(u, zero), _mm256_unpackhi_epi8(u, zero), x);
}
// 16-bit lanes: round(a * b / 2^15), ties up, but for -2^15 * -2^15; a sum that saturates.
TAE_VEC VI mul_words(VI a, VI b) { return _mm256_mulhrs_epi16(a, b); }
TAE_VEC VI add_words(VI a, VI b) { return _mm256_adds_epi16(a, b); }
// Bytes as the high halves of 16-bit lanes; lanes to bytes in the same order, saturated to u8.
TAE_VEC void spread_bytes(VBytes x, VI& low, VI& high) {
  const __m256i zero = _mm256_setzero_si256();
  low = _mm256_unpacklo_epi8(zero, x);
  high = _mm256_unpackhi_epi8(zero, x);
}
// 4 vectors of integers in the order of pack_lanes as 2 of 16-bit lanes, saturated.
TAE_VEC VI narrow(VI a, VI b) { return _mm256_packs_epi32(a, b); }
TAE_VEC VBytes pack_words(VI low, VI high) { return _mm256_packus_epi16(low, high); }
TAE_VEC VI set1_16(int32_t x) { return _mm256_set1_epi16(static_cast<int16_t>(x)); }
TAE_VEC VBytes set1_8(int32_t x) { return _mm256_set1_epi8(static_cast<char>(x)); }
TAE_VEC VBytes max_u8(VBytes a, VBytes b) { return _mm256_max_epu8(a, b); }
TAE_VEC VBytes clamp_u8(VBytes x, VBytes lo, VBytes hi) {
  return _mm256_min_epu8(_mm256_max_epu8(x, lo), hi);
}
TAE_VEC VBytes xor_bytes(VBytes a, VBytes b) { return _mm256_xor_si256(a, b); }
TAE_VEC VBytes load_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
TAE_VEC void store_bytes(void* p, VBytes x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
// Past the caches, to an aligned place.
TAE_VEC void stream_bytes(void* p, VBytes x) { _mm256_stream_si256(static_cast<__m256i*>(p), x); }
// The first n < 4 * kLanes bytes.
TAE_VEC VBytes load_bytes(const void* p, int64_t n) {
  alignas(32) uint8_t copy[4 * kLanes] = {};
  if (n > 0) std::memcpy(copy, p, static_cast<size_t>(n));  // an empty row is null
  return load_bytes(copy);
}
TAE_VEC void store_bytes(void* p, VBytes x, int64_t n) {
  alignas(32) uint8_t copy[4 * kLanes];
  store_bytes(copy, x);
  std::memcpy(p, copy, static_cast<size_t>(n));
}
// Zeroes bytes [n, end): lanes beyond a tail hold the zero point, not 0.
TAE_VEC VBytes keep_bytes(VBytes x, int64_t n) {
  alignas(32) uint8_t copy[4 * kLanes] = {};
  store_bytes(copy, x, n);
  return load_bytes(copy);
}
// Partial sums of bytes in 32-bit lanes, at most 8 * 255 each.
TAE_VEC VI sum_bytes(VI total, VBytes x) {
  return _mm256_add_epi32(total, _mm256_sad_epu8(x, _mm256_setzero_si256()));
}
// Adds u * (u - kSquareShift) of all bytes u to 32-bit lanes, each at most 4 * 255^2.
constexpr int64_t kSquareShift = 0;
TAE_VEC VI sum_squares(VI total, VBytes x) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i low = _mm256_unpacklo_epi8(x, zero), high = _mm256_unpackhi_epi8(x, zero);
  return _mm256_add_epi32(total,
                          _mm256_add_epi32(_mm256_madd_epi16(low, low), _mm256_madd_epi16(high, high)));
}

}  // namespace
}  // namespace tae::kernels
