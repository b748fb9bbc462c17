// 8-bit and 4-bit weights with VPDPBUSD, included by weight_only__avx512vnni.cpp: weights are
// the unsigned side (nibbles become bytes in registers), the planes of x the signed one.
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

// Four cache lines that are wanted soon.
TAE_VEC void fetch(const uint8_t* p) {
  for (int64_t line = 0; line < 256; line += 64)
    _mm_prefetch(reinterpret_cast<const char*>(p + line + kAhead), _MM_HINT_T0);
}

// Sums, or weights, of 64 columns. Named members, not an array: GCC 12 would keep an array
// in memory.
struct Columns {
  __m512i c0, c1, c2, c3;
};

// Nothing is known of c: GCC 12 would give equal values one register, or make them again.
TAE_VEC void hide(Columns& c) { asm("" : "+v"(c.c0), "+v"(c.c1), "+v"(c.c2), "+v"(c.c3)); }

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

// v + f32(sum) * scale (* weight scale)
template <int kBits>
TAE_VEC __m512 add_term(__m512 v, __m512i sum, __m512 scale, __m512 weight_scale) {
  __m512 term = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
  if constexpr (kBits == 4) term = _mm512_mul_ps(term, weight_scale);
  return _mm512_add_ps(v, term);
}

// --- tiles of rows ----------------------------------------------------------------

// 16 of the 32 registers accumulate: with 24 the sums of a group of 64 or 128 take no less time,
// because what follows them comes in longer bursts.
constexpr int kTileRows = 4;
struct Tile {
  Columns r0, r1, r2, r3;
};

// Calls body(columns, row) for the first kRows rows.
template <int kRows, typename Body>
TAE_VEC void for_rows(Tile& t, const Body& body) {
  body(t.r0, 0);
  if constexpr (kRows > 1) body(t.r1, 1);
  if constexpr (kRows > 2) body(t.r2, 2);
  if constexpr (kRows > 3) body(t.r3, 3);
}

template <int kRows>
TAE_VEC void multiply(Tile& t, const uint8_t* x, int64_t stride, Columns w) {
  hide(w);
  for_rows<kRows>(t, [&](Columns& sums, int r) __attribute__((always_inline)) {
    __m512i q = quad(x + r * stride);
    asm("" : "+v"(q));  // broadcast once, not for every multiply-add
    dot(sums, w, q);
  });
}

// 16 columns of all rows, from sums to v.
template <int kBits, int kRows, __m512i Columns::* kColumn>
TAE_VEC void add_columns(Tile& t, const WeightOnlyGroup& g, int64_t first, const float* weight_scale,
                         int64_t column) {
  const __m512 scales = kBits == 4 ? _mm512_load_ps(weight_scale + column) : _mm512_setzero_ps();
  for_rows<kRows>(t, [&](Columns& sums, int r) __attribute__((always_inline)) {
    float* v = g.v + g.row[first + r] * kColumns + column;
    const __m512 scale = _mm512_set1_ps(g.scale[first + r]);
    _mm512_storeu_ps(v, add_term<kBits>(_mm512_loadu_ps(v), sums.*kColumn, scale, scales));
  });
}

// kRows rows from `first`.
template <int kBits, int kRows, bool kFetch>
[[gnu::noinline]] void tile(const WeightOnlyGroup& g, int64_t first) noexcept {
  Tile t;
  for_rows<kRows>(t, [&](Columns& sums, int r) __attribute__((always_inline)) {
    sums = all(_mm512_set1_epi32(g.start[first + r]));
    hide(sums);
  });
  const uint8_t* x = g.x + first * g.x_stride;
  const uint8_t* b = g.weight;
  constexpr int64_t kStep = kBits == 4 ? 8 : 4;  // k in 256 bytes
  for (int64_t k = 0; k < g.group; k += kStep, b += 256, x += kStep) {
    if constexpr (kFetch) fetch(b);
    const Columns w = load_columns(b);
    if constexpr (kBits == 4) {
      multiply<kRows>(t, x, g.x_stride, low_nibbles(w));
      multiply<kRows>(t, x + 4, g.x_stride, high_nibbles(w));
    } else {
      multiply<kRows>(t, x, g.x_stride, w);
    }
  }
  if constexpr (kFetch && kBits == 4) fetch(b);
  for_rows<kRows>(t, [](Columns& sums, int) __attribute__((always_inline)) { hide(sums); });
  const float* weight_scale = reinterpret_cast<const float*>(b);
  add_columns<kBits, kRows, &Columns::c0>(t, g, first, weight_scale, 0);
  add_columns<kBits, kRows, &Columns::c1>(t, g, first, weight_scale, 16);
  add_columns<kBits, kRows, &Columns::c2>(t, g, first, weight_scale, 32);
  add_columns<kBits, kRows, &Columns::c3>(t, g, first, weight_scale, 48);
}

using TileFn = void (*)(const WeightOnlyGroup& g, int64_t first);
// [fetch][rows]
template <int kBits>
constexpr TileFn kTiles[2][kTileRows + 1] = {
    {nullptr, tile<kBits, 1, false>, tile<kBits, 2, false>, tile<kBits, 3, false>, tile<kBits, 4, false>},
    {nullptr, tile<kBits, 1, true>, tile<kBits, 2, true>, tile<kBits, 3, true>, tile<kBits, 4, true>},
};

// Tiles of equal height, one row more or less.
template <int kBits>
void rows(const WeightOnlyGroup& g) {
  const DefaultFloatEnv env;
  const uint32_t rows = static_cast<uint32_t>(g.rows), tiles = (rows + kTileRows - 1) / kTileRows;
  const uint32_t low = rows / tiles, high_tiles = rows % tiles;  // that have a row more
  bool fetches = g.fetch;
  for (uint32_t i = 0, first = 0; i < tiles; ++i) {
    const uint32_t count = low + (i < high_tiles);
    kTiles<kBits>[fetches][count](g, first);
    first += count;
    fetches = false;
  }
}

// --- one row ----------------------------------------------------------------------

// v of 64 columns.
struct RowSums {
  __m512 v0, v1, v2, v3;
};

// One plane of one group. Two sets of accumulators hide the latency of the multiply-add.
template <int kBits, bool kFetch>
TAE_VEC void add_plane(RowSums& s, const uint8_t* x, int32_t start, float x_scale, const uint8_t* b,
                       int64_t group) {
  Columns even = all(_mm512_set1_epi32(start)), odd = all(_mm512_setzero_si512());
  for (int64_t k = 0; k < group; k += 8, x += 8) {
    if constexpr (kFetch) fetch(b);
    const Columns w = load_columns(b);
    b += 256;
    if constexpr (kBits == 4) {
      dot(even, low_nibbles(w), quad(x));
      dot(odd, high_nibbles(w), quad(x + 4));
    } else {
      dot(even, w, quad(x));
      if constexpr (kFetch) fetch(b);
      dot(odd, load_columns(b), quad(x + 4));
      b += 256;
    }
  }
  if constexpr (kFetch && kBits == 4) fetch(b);
  const __m512 scale = _mm512_set1_ps(x_scale);
  const float* weight_scale = reinterpret_cast<const float*>(b);
  const auto add = [&](__m512 v, __m512i e, __m512i o, int i) __attribute__((always_inline)) {
    const __m512 scales = kBits == 4 ? _mm512_load_ps(weight_scale + i) : scale;
    return add_term<kBits>(v, _mm512_add_epi32(e, o), scale, scales);
  };
  s = {add(s.v0, even.c0, odd.c0, 0), add(s.v1, even.c1, odd.c1, 16), add(s.v2, even.c2, odd.c2, 32),
       add(s.v3, even.c3, odd.c3, 48)};
}

// One row reads every weight once, as fast as the memory below; v stays in registers.
template <int kBits>
[[gnu::noinline]] void row_body(const WeightOnlyRow& row) noexcept {
  const int64_t block = kBits == 4 ? row.group * 32 + 256 : row.group * 64;
  for (int64_t p = 0; p < row.panels; ++p) {
    const uint8_t* b = row.weight + p * row.panel_bytes;
    const __m512 zero = _mm512_setzero_ps();
    RowSums s = {zero, zero, zero, zero};
    for (int64_t g = 0; g < row.groups; ++g, b += block) {
      const int64_t at = g * row.group;
      add_plane<kBits, true>(s, row.high + at, row.high_scales.start[g], row.high_scales.scale[g], b,
                             row.group);
      if (row.low_count[g] != 0)
        add_plane<kBits, false>(s, row.low + at, row.low_scales.start[g], row.low_scales.scale[g], b,
                                row.group);
    }
    float* v = row.v + kColumns * p;
    _mm512_storeu_ps(v, s.v0);
    _mm512_storeu_ps(v + 16, s.v1);
    _mm512_storeu_ps(v + 32, s.v2);
    _mm512_storeu_ps(v + 48, s.v3);
  }
}

template <int kBits>
void row(const WeightOnlyRow& r) {
  const DefaultFloatEnv env;
  row_body<kBits>(r);
}

}  // namespace
}  // namespace tae::kernels
