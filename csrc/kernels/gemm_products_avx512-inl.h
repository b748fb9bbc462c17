// Products of 4 k on AVX512-VNNI, for a register tile. Included by gemm__avx512vnni.cpp.
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "kernels/gemm_block.h"
#include "kernels/gemm_sums_avx512-inl.h"

namespace tae::kernels {
namespace {

TAE_INLINE __m512i broadcast(const uint8_t* a) {
  int32_t word;
  __builtin_memcpy(&word, a, 4);
  return _mm512_set1_epi32(word);
}

TAE_INLINE void dot(__m512i& acc, __m512i x, __m512i w) { acc = _mm512_dpbusd_epi32(acc, x, w); }

TAE_INLINE void multiply(Row& row, const uint8_t* a, const Row& w) {
  const __m512i x = broadcast(a);
  dot(row.c0, x, w.c0);
  dot(row.c1, x, w.c1);
  dot(row.c2, x, w.c2);
  dot(row.c3, x, w.c3);
}

// The rows of one Row, the first at `a`.
template <int kDeep>
TAE_INLINE void multiply_deep(Row& row, const uint8_t* a, int64_t a_stride, __m512i w0, __m512i w1) {
  const __m512i x0 = broadcast(a), x1 = broadcast(a + a_stride);
  if constexpr (kDeep == 2) {
    dot(row.c0, x0, w0);
    dot(row.c1, x0, w1);
    dot(row.c2, x1, w0);
    dot(row.c3, x1, w1);
  } else {
    dot(row.c0, x0, w0);
    dot(row.c1, x1, w0);
    a += 2 * a_stride;
    dot(row.c2, broadcast(a), w0);
    dot(row.c3, broadcast(a + a_stride), w0);
  }
}

// Memory that the rows of a tile will need when their sums are done. Rows that follow one
// another in memory are a stream, which the CPU fetches by itself: a fetch costs 2 cycles.
TAE_INLINE void fetch_rows(const GemmBlock& g, int64_t begin, int64_t end) {
  if (g.out_stride <= 64) return;
  for (int64_t j = begin; j < end; ++j)
    for (int64_t byte = 0; byte < g.out_bytes; byte += 64) fetch_for_write(g.out + j * g.out_stride + byte);
  if (g.finish_bytes == nullptr || g.finish_bytes->addend.data == nullptr) return;
  const ByteAddend& addend = g.finish_bytes->addend;
  for (int64_t j = begin; j < end; ++j) __builtin_prefetch(addend.data + j * addend.stride);
}

// Cache lines to draw into L2, one in a step.
struct Lines {
  const int8_t* data;
  int64_t count;
};

// Where a tile reads its next 4 k. kApart: GCC is not told how the third Row lies to the first, or it
// would keep the distances of all rows.
template <bool kApart>
struct Operands {
  const uint8_t* a;
  const uint8_t* a2;  // of the third Row, if kApart
  const int8_t* b;
};

template <int kDeep, bool kApart>
TAE_INLINE Operands<kApart> operands(const GemmBlock& g, int64_t r) {
  Operands<kApart> o = {g.a + r * g.a_stride, nullptr, g.b};
  if constexpr (kApart) {
    o.a2 = o.a + 2 * kDeep * g.a_stride;
    __asm__("" : "+r"(o.a2));
  }
  return o;
}

template <bool kApart>
TAE_INLINE void advance(Operands<kApart>& o, int64_t bytes) {
  o.a += bytes;
  if constexpr (kApart) o.a2 += bytes;
}

// From the end of one range of k to the begin of the next.
template <bool kApart>
TAE_INLINE void next_line(const GemmBlock& g, Operands<kApart>& o) {
  advance(o, g.line_stride - 4 * g.quads);
}

// One step of 4 k for kRows Rows.
template <int kRows, int kDeep, bool kApart>
TAE_INLINE void multiply_step(Tile& t, Operands<kApart>& o, int64_t a_stride) {
  const int64_t next = kDeep * a_stride;
  const uint8_t* const a2 = kApart ? o.a2 : o.a + 2 * next;
  if constexpr (kDeep == 1) {
    Row w = load(o.b);
    // Otherwise GCC 12 loads the weights again for every row of a low tile.
    if constexpr (kRows > 1) asm("" : "+v"(w.c0), "+v"(w.c1), "+v"(w.c2), "+v"(w.c3));
    multiply(t.r0, o.a, w);
    if constexpr (kRows > 1) multiply(t.r1, o.a + next, w);
    if constexpr (kRows > 2) multiply(t.r2, a2, w);
    if constexpr (kRows > 3) multiply(t.r3, a2 + next, w);
    if constexpr (kRows > 4) multiply(t.r4, a2 + 2 * next, w);
    if constexpr (kRows > 5) multiply(t.r5, a2 + 3 * next, w);
  } else {
    const __m512i w0 = _mm512_loadu_si512(o.b);
    const __m512i w1 = kDeep == 2 ? _mm512_loadu_si512(o.b + 64) : w0;
    multiply_deep<kDeep>(t.r0, o.a, a_stride, w0, w1);
    if constexpr (kRows > 1) multiply_deep<kDeep>(t.r1, o.a + next, a_stride, w0, w1);
    if constexpr (kRows > 2) multiply_deep<kDeep>(t.r2, a2, a_stride, w0, w1);
    if constexpr (kRows > 3) multiply_deep<kDeep>(t.r3, a2 + next, a_stride, w0, w1);
  }
  advance(o, 4);
  o.b += kQuadBytes;
}

// `steps` steps of 4 k; each also fetches a line of `lines` if kFetch.
template <int kRows, int kDeep, bool kFetch, bool kApart>
TAE_INLINE void multiply_steps(Tile& t, Operands<kApart>& o, int64_t a_stride, int64_t steps,
                               const int8_t* lines) {
  for (int64_t q = 0; q < steps; ++q) {
    if constexpr (kFetch) {
      fetch_to_l2(lines);
      lines += 64;
    }
    multiply_step<kRows, kDeep>(t, o, a_stride);
  }
}

// Cache lines that each of some tiles fetches, one in a step.
inline int64_t lines_of(int64_t bytes, int64_t tiles, int64_t most) {
  return std::min((bytes / 64 + tiles - 1) / tiles, most);
}

}  // namespace
}  // namespace tae::kernels
