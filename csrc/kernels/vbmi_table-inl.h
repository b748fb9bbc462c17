// Bytes from a table of 256 in registers. AVX512-VBMI is no part of the level (Cascade Lake has VNNI
// without it): who takes a kernel with these asks the CPU first.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace tae::kernels {
namespace {

// The top bit of an index chooses the pair.
struct [[gnu::visibility("hidden")]] ByteTable {
  __m512i low0, low1, high0, high1;
};

[[gnu::target("avx512vbmi"), gnu::always_inline]] inline ByteTable load_table(const uint8_t* table) {
  return {_mm512_loadu_si512(table), _mm512_loadu_si512(table + 64), _mm512_loadu_si512(table + 128),
          _mm512_loadu_si512(table + 192)};
}

// The bytes at 64 places.
[[gnu::target("avx512vbmi"), gnu::always_inline]] inline __m512i look_up(const ByteTable& t, __m512i x) {
  const __m512i low = _mm512_permutex2var_epi8(t.low0, x, t.low1);
  const __m512i high = _mm512_permutex2var_epi8(t.high0, x, t.high1);
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high);
}

}  // namespace
}  // namespace tae::kernels
