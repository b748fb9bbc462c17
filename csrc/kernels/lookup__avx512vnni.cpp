// Lookups with AVX512-VBMI: lookup.cpp asks the CPU before it calls this.
#include "kernels/fetch_ahead.h"
#include "kernels/vbmi_table-inl.h"

namespace tae::kernels {
namespace {

[[gnu::target("avx512vbmi"), gnu::always_inline]] inline void look_up(const ByteTable& t, const uint8_t* src,
                                                                      int64_t count, uint8_t* dst) {
  int64_t i = 0;
  for (const int64_t end = lines_before_last(count); i < end; i += 64) {
    fetch_ahead(src + i);
    fetch_ahead_to_write(dst + i);
    _mm512_storeu_si512(dst + i, look_up(t, _mm512_loadu_si512(src + i)));
  }
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
  const ByteTable t = load_table(table);
  for (int64_t r = 0; r < rows; ++r) look_up(t, src + r * count, count, dst + r * step);
}

}  // namespace tae::kernels
