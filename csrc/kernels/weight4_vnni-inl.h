// 4-bit weights with VPDPBUSD, included by weight_only__avx512vnni.cpp: nibbles become the
// unsigned side in registers, the planes are the signed one.
#pragma once

#include "kernels/weight_only-inl.h"

namespace tae::kernels {
namespace {

constexpr int64_t kAhead = 4096;  // bytes between a load and its prefetch

TAE_VEC __m512i quad(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}

TAE_VEC void fetch(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p + kAhead), _MM_HINT_T0); }

// Sums, or weights, of 64 columns. Named members, not an array: GCC 12 would keep an array
// in memory.
struct Columns {
  __m512i c0, c1, c2, c3;
};

TAE_VEC Columns all(__m512i x) { return {x, x, x, x}; }

TAE_VEC Columns load_columns(const uint8_t* p) {
  return {_mm512_load_si512(p), _mm512_load_si512(p + 64), _mm512_load_si512(p + 128),
          _mm512_load_si512(p + 192)};
}

TAE_VEC Columns low_nibbles(const Columns& w) {
  const __m512i mask = _mm512_set1_epi8(0x0f);
  return {_mm512_and_si512(w.c0, mask), _mm512_and_si512(w.c1, mask), _mm512_and_si512(w.c2, mask),
          _mm512_and_si512(w.c3, mask)};
}

TAE_VEC Columns high_nibbles(const Columns& w) {
  return low_nibbles({_mm512_srli_epi16(w.c0, 4), _mm512_srli_epi16(w.c1, 4), _mm512_srli_epi16(w.c2, 4),
                      _mm512_srli_epi16(w.c3, 4)});
}

TAE_VEC void dot(Columns& s, const Columns& w, __m512i x) {
  s.c0 = _mm512_dpbusd_epi32(s.c0, w.c0, x);
  s.c1 = _mm512_dpbusd_epi32(s.c1, w.c1, x);
  s.c2 = _mm512_dpbusd_epi32(s.c2, w.c2, x);
  s.c3 = _mm512_dpbusd_epi32(s.c3, w.c3, x);
}

TAE_VEC void store_columns(const Columns& s, int32_t* c) {
  _mm512_store_si512(c, s.c0);
  _mm512_store_si512(c + 16, s.c1);
  _mm512_store_si512(c + 32, s.c2);
  _mm512_store_si512(c + 48, s.c3);
}

// v[64] += f32(256 * c[0] + c[1]) * scale, or c[0] alone.
template <int kPlanes>
TAE_VEC void add_terms(const int32_t (*c)[kColumns], const float* scale, float* v) {
  for (int64_t j = 0; j < kColumns; j += 16) {
    __m512i sum = _mm512_load_si512(c[0] + j);
    if constexpr (kPlanes == 2)
      sum = _mm512_add_epi32(_mm512_slli_epi32(sum, 8), _mm512_load_si512(c[1] + j));
    const __m512 term = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_load_ps(scale + j));
    _mm512_storeu_ps(v + j, _mm512_add_ps(_mm512_loadu_ps(v + j), term));
  }
}

// Six rows of planes: 24 of the 32 registers accumulate.
struct Tile {
  Columns r0, r1, r2, r3, r4, r5;
};

TAE_VEC void multiply_row(Columns& sums, const Columns& w, const uint8_t* x) {
  __m512i q = quad(x);
  asm("" : "+v"(q));  // broadcast once, not for every multiply-add
  dot(sums, w, q);
}

template <int kRows>
TAE_VEC void multiply(Tile& t, const uint8_t* x, int64_t stride, Columns w) {
  // Otherwise GCC 12 makes the nibbles again for every row.
  asm("" : "+v"(w.c0), "+v"(w.c1), "+v"(w.c2), "+v"(w.c3));
  multiply_row(t.r0, w, x);
  if constexpr (kRows > 1) multiply_row(t.r1, w, x + stride);
  if constexpr (kRows > 2) multiply_row(t.r2, w, x + 2 * stride);
  if constexpr (kRows > 3) multiply_row(t.r3, w, x + 3 * stride);
  if constexpr (kRows > 4) multiply_row(t.r4, w, x + 4 * stride);
  if constexpr (kRows > 5) multiply_row(t.r5, w, x + 5 * stride);
}

template <int kPlanes, int kRow, int kRows>
TAE_VEC Columns start(const WeightOnlyGroup& g, int64_t first) {
  if constexpr (kRow >= kRows || (kPlanes == 2 && kRow % 2 == 0)) return all(_mm512_setzero_si512());
  return all(_mm512_set1_epi32(g.group_sums[(first + kRow / kPlanes) * g.sums_stride]));
}

// kRows rows of planes, kRows / kPlanes rows from `first`.
template <int kPlanes, int kRows, bool kFetch>
[[gnu::noinline]] void tile4(const WeightOnlyGroup& g, int64_t first) noexcept {
  // What w + 8 in the place of w adds too much enters one of a row's sums.
  Tile t = {start<kPlanes, 0, kRows>(g, first), start<kPlanes, 1, kRows>(g, first),
            start<kPlanes, 2, kRows>(g, first), start<kPlanes, 3, kRows>(g, first),
            start<kPlanes, 4, kRows>(g, first), start<kPlanes, 5, kRows>(g, first)};
  const uint8_t* x = g.x + first * kPlanes * g.x_stride;
  const uint8_t* b = g.weight;
  for (int64_t k = 0; k < g.group; k += 8) {
    if constexpr (kFetch) {
      fetch(b);
      fetch(b + 64);
      fetch(b + 128);
      fetch(b + 192);
    }
    multiply<kRows>(t, x, g.x_stride, low_nibbles(load_columns(b)));
    multiply<kRows>(t, x + 4, g.x_stride, high_nibbles(load_columns(b)));
    b += kStep4;
    x += 8;
  }
  if constexpr (kFetch)
    for (int64_t line = 0; line < 256; line += 64) fetch(b + line);
  // Through memory, and hidden from the compiler: GCC 12 would spill inside the loop.
  alignas(64) int32_t c[6][kColumns];
  store_columns(t.r0, c[0]);
  if constexpr (kRows > 1) store_columns(t.r1, c[1]);
  if constexpr (kRows > 2) store_columns(t.r2, c[2]);
  if constexpr (kRows > 3) store_columns(t.r3, c[3]);
  if constexpr (kRows > 4) store_columns(t.r4, c[4]);
  if constexpr (kRows > 5) store_columns(t.r5, c[5]);
  asm volatile("" : : "r"(c) : "memory");
  const float* scale = reinterpret_cast<const float*>(b);
  for (int r = 0; r < kRows; r += kPlanes)
    add_terms<kPlanes>(c + r, scale, g.v + (first + r / kPlanes) * kColumns);
}

using TileFn = void (*)(const WeightOnlyGroup& g, int64_t first);
// [fetch][rows]
constexpr TileFn kTwoPlanes[2][4] = {
    {nullptr, tile4<2, 2, false>, tile4<2, 4, false>, tile4<2, 6, false>},
    {nullptr, tile4<2, 2, true>, tile4<2, 4, true>, tile4<2, 6, true>},
};
constexpr TileFn kOnePlane[2][7] = {
    {nullptr, tile4<1, 1, false>, tile4<1, 2, false>, tile4<1, 3, false>, tile4<1, 4, false>,
     tile4<1, 5, false>, tile4<1, 6, false>},
    {nullptr, tile4<1, 1, true>, tile4<1, 2, true>, tile4<1, 3, true>, tile4<1, 4, true>, tile4<1, 5, true>,
     tile4<1, 6, true>},
};

// Tiles of equal height, one row more or less.
void rows4(const WeightOnlyGroup& g) {
  const DefaultFloatEnv env;
  const int64_t most = 6 / g.planes, tiles = (g.rows + most - 1) / most;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t first = g.rows * i / tiles, count = g.rows * (i + 1) / tiles - first;
    const bool fetches = g.fetch && i == 0;
    (g.planes == 2 ? kTwoPlanes[fetches][count] : kOnePlane[fetches][count])(g, first);
  }
}

// One row reads every weight once, as fast as the memory below; v stays in registers.
template <int kPlanes>
[[gnu::noinline]] void row4_body(const WeightOnlyRow& row) noexcept {
  const int64_t groups = row.k_pad / row.group;
  for (int64_t p = 0; p < row.panels; ++p) {
    const uint8_t* b = row.weight + p * row.panel_bytes;
    const uint8_t* xh = row.high;
    const uint8_t* xl = row.low;
    __m512 v0 = _mm512_setzero_ps(), v1 = v0, v2 = v0, v3 = v0;
    for (int64_t g = 0; g < groups; ++g) {
      const __m512i start = _mm512_set1_epi32(row.group_sums[g]);
      Columns high = all(kPlanes == 2 ? _mm512_setzero_si512() : start), low = all(start);
      for (int64_t k = 0; k < row.group; k += 8) {
        for (int64_t line = 0; line < kStep4; line += 64) fetch(b + line);
        const Columns w = load_columns(b);
        const Columns even = low_nibbles(w), odd = high_nibbles(w);
        dot(high, even, quad(xh));
        if constexpr (kPlanes == 2) dot(low, even, quad(xl));
        dot(high, odd, quad(xh + 4));
        if constexpr (kPlanes == 2) dot(low, odd, quad(xl + 4));
        b += kStep4;
        xh += 8;
        if constexpr (kPlanes == 2) xl += 8;
      }
      for (int64_t line = 0; line < 256; line += 64) fetch(b + line);
      const float* scale = reinterpret_cast<const float*>(b);
      const auto add = [&](__m512 v, int i, __m512i h, __m512i l) {
        const __m512i sum = kPlanes == 2 ? _mm512_add_epi32(_mm512_slli_epi32(h, 8), l) : h;
        return _mm512_add_ps(v, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_load_ps(scale + i)));
      };
      v0 = add(v0, 0, high.c0, low.c0);
      v1 = add(v1, 16, high.c1, low.c1);
      v2 = add(v2, 32, high.c2, low.c2);
      v3 = add(v3, 48, high.c3, low.c3);
      b += 256;
    }
    float* v = row.v + kColumns * p;
    _mm512_storeu_ps(v, v0);
    _mm512_storeu_ps(v + 16, v1);
    _mm512_storeu_ps(v + 32, v2);
    _mm512_storeu_ps(v + 48, v3);
  }
}

void row4(const WeightOnlyRow& row) {
  const DefaultFloatEnv env;
  if (row.planes == 2)
    row4_body<2>(row);
  else
    row4_body<1>(row);
}

void sum_groups(int planes, const uint8_t* high, const uint8_t* low, int64_t k_pad, int64_t group,
                int32_t* sums) {
  const __m256i ones = _mm256_set1_epi8(1);
  for (int64_t g = 0; g * group < k_pad; ++g) {
    __m256i h = _mm256_setzero_si256(), l = h;
    for (int64_t k = g * group; k < (g + 1) * group; k += 32) {
      const auto part = [k](const uint8_t* p) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + k));
      };
      h = _mm256_dpbusd_epi32(h, ones, part(high));
      if (planes == 2) l = _mm256_dpbusd_epi32(l, ones, part(low));
    }
    if (planes == 2) h = _mm256_add_epi32(_mm256_slli_epi32(h, 8), l);
    sums[g] = -8 * _mm512_reduce_add_epi32(_mm512_zextsi256_si512(h));
  }
}

}  // namespace
}  // namespace tae::kernels
