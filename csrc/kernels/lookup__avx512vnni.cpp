// AVX512-VBMI is no part of the level (Cascade Lake has VNNI without it): lookup.cpp asks
// the CPU before it calls this.
#include <immintrin.h>

#include <cstdint>

namespace tae::kernels {
namespace {

// The 256 bytes in four registers; the top bit of an index chooses the pair.
struct [[gnu::visibility("hidden")]] Table {
  __m512i low0, low1, high0, high1;
};

[[gnu::target("avx512vbmi"), gnu::always_inline]] inline __m512i look_up(const Table& t, __m512i x) {
  const __m512i low = _mm512_permutex2var_epi8(t.low0, x, t.low1);
  const __m512i high = _mm512_permutex2var_epi8(t.high0, x, t.high1);
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high);
}

[[gnu::target("avx512vbmi"), gnu::always_inline]] inline Table load_table(const uint8_t* table) {
  return {_mm512_loadu_si512(table), _mm512_loadu_si512(table + 64), _mm512_loadu_si512(table + 128),
          _mm512_loadu_si512(table + 192)};
}

[[gnu::target("avx512vbmi"), gnu::always_inline]] inline void look_up(const Table& t, const uint8_t* src,
                                                                      int64_t count, uint8_t* dst) {
  int64_t i = 0;
  for (; i + 256 <= count; i += 256) {
    const __m512i a = _mm512_loadu_si512(src + i), b = _mm512_loadu_si512(src + i + 64),
                  c = _mm512_loadu_si512(src + i + 128), d = _mm512_loadu_si512(src + i + 192);
    _mm512_storeu_si512(dst + i, look_up(t, a));
    _mm512_storeu_si512(dst + i + 64, look_up(t, b));
    _mm512_storeu_si512(dst + i + 128, look_up(t, c));
    _mm512_storeu_si512(dst + i + 192, look_up(t, d));
  }
  for (; i + 64 <= count; i += 64) _mm512_storeu_si512(dst + i, look_up(t, _mm512_loadu_si512(src + i)));
  if (i == count) return;
  const __mmask64 mask = (1ull << (count - i)) - 1;
  _mm512_mask_storeu_epi8(dst + i, mask, look_up(t, _mm512_maskz_loadu_epi8(mask, src + i)));
}

}  // namespace

[[gnu::target("avx512vbmi")]] void lookup_bytes__avx512vnni(const uint8_t* table, const uint8_t* src,
                                                            int64_t count, uint8_t* dst) {
  look_up(load_table(table), src, count, dst);
}

[[gnu::target("avx512vbmi")]] void lookup_rows__avx512vnni(const uint8_t* table, const uint8_t* src,
                                                           int64_t rows, int64_t count, uint8_t* dst,
                                                           int64_t step) {
  const Table t = load_table(table);
  for (int64_t r = 0; r < rows; ++r) look_up(t, src + r * count, count, dst + r * step);
}

}  // namespace tae::kernels
