// GEMM with VPDPBUSD on 512-bit registers. 6 rows by 64 columns: 24 of the 32
// registers accumulate, 4 hold weights, and a step of 4 k costs 10 loads for 24
// multiply-adds, so the two multiply ports (p0, p5) stay busy.

// GCC 12 takes the undefined pass-through operands of avx512fintrin.h for variables
// that we forgot to set (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>

#include "kernels/byte_rule_avx512-inl.h"
#include "kernels/gemm_block.h"

namespace tae::kernels {
namespace {

inline __attribute__((always_inline)) __m512i broadcast(const uint8_t* a) {
  int32_t word;
  __builtin_memcpy(&word, a, 4);
  return _mm512_set1_epi32(word);
}

// One row of the register tile. Named members, not an array: GCC 12 would keep
// an array in memory because it unrolls loops after it has split aggregates.
struct Row {
  __m512i c0, c1, c2, c3;
};

inline __attribute__((always_inline)) void dot(__m512i& acc, __m512i x, __m512i w) {
  acc = _mm512_dpbusd_epi32(acc, x, w);
}

inline __attribute__((always_inline)) void multiply(Row& row, const uint8_t* a, const Row& w) {
  const __m512i x = broadcast(a);
  dot(row.c0, x, w.c0);
  dot(row.c1, x, w.c1);
  dot(row.c2, x, w.c2);
  dot(row.c3, x, w.c3);
}

inline __attribute__((always_inline)) Row load(const void* p) {
  const __m512i* v = static_cast<const __m512i*>(p);
  return {_mm512_loadu_si512(v), _mm512_loadu_si512(v + 1), _mm512_loadu_si512(v + 2),
          _mm512_loadu_si512(v + 3)};
}

inline __attribute__((always_inline)) void store(const Row& row, int32_t* c) {
  _mm512_storeu_si512(c, row.c0);
  _mm512_storeu_si512(c + 16, row.c1);
  _mm512_storeu_si512(c + 32, row.c2);
  _mm512_storeu_si512(c + 48, row.c3);
}

struct Tile {
  Row r0, r1, r2, r3, r4, r5;
};

// Column parameters of 16 columns, as FloatFinish has them.
struct Columns {
  __m512i sum;
  __m512 scale;
  __m512 bias;
  bool has_bias;
  __mmask16 mask;
};

inline __attribute__((always_inline)) Columns load_columns(const FloatFinish& f, int64_t first) {
  const int64_t left = f.cols - first;
  Columns c;
  c.mask = left >= 16 ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
  c.sum = _mm512_loadu_si512(f.column_sum + first);
  c.scale = f.weight_scale_stride == 0 ? _mm512_set1_ps(f.weight_scale[0])
                                       : _mm512_maskz_loadu_ps(c.mask, f.weight_scale + first);
  c.has_bias = f.bias != nullptr;
  c.bias = c.has_bias ? _mm512_maskz_loadu_ps(c.mask, f.bias + first) : _mm512_setzero_ps();
  return c;
}

// 16 columns of one row; the order of operations is engines/linear.h's.
inline __attribute__((always_inline)) void finish(const FloatFinish& f, const Columns& c, __m512i acc,
                                                  int64_t r, int64_t first) {
  const RowParams& row = f.row[r * f.row_step];
  const __m512i offset = _mm512_mullo_epi32(_mm512_set1_epi32(row.zero_point), c.sum);
  __m512 x = _mm512_cvtepi32_ps(_mm512_sub_epi32(acc, offset));
  x = _mm512_mul_ps(x, _mm512_mul_ps(_mm512_set1_ps(row.scale), c.scale));
  if (c.has_bias) x = _mm512_add_ps(x, c.bias);
  float* out = f.out + r * f.out_stride + first;
  if (c.mask == 0xffff) {
    _mm512_storeu_ps(out, x);
  } else {
    _mm512_mask_storeu_ps(out, c.mask, x);
  }
}

template <int kRows, __m512i Row::* kColumn>
inline __attribute__((always_inline)) void finish_columns(const FloatFinish& f, const Tile& t, int64_t r,
                                                          int64_t first) {
  const Columns c = load_columns(f, first);
  finish(f, c, t.r0.*kColumn, r, first);
  if constexpr (kRows > 1) finish(f, c, t.r1.*kColumn, r + 1, first);
  if constexpr (kRows > 2) finish(f, c, t.r2.*kColumn, r + 2, first);
  if constexpr (kRows > 3) finish(f, c, t.r3.*kColumn, r + 3, first);
  if constexpr (kRows > 4) finish(f, c, t.r4.*kColumn, r + 4, first);
  if constexpr (kRows > 5) finish(f, c, t.r5.*kColumn, r + 5, first);
}

template <int kRows>
inline __attribute__((always_inline)) void finish_tile(const FloatFinish& f, const Tile& t, int64_t r) {
  finish_columns<kRows, &Row::c0>(f, t, r, 0);
  finish_columns<kRows, &Row::c1>(f, t, r, 16);
  finish_columns<kRows, &Row::c2>(f, t, r, 32);
  finish_columns<kRows, &Row::c3>(f, t, r, 48);
}

enum class Addend { none, u8, s8 };

// 16 values of the addend, 0 where the mask has none.
template <Addend kAddend>
inline __attribute__((always_inline)) __m512 load_addend(const ByteAddend& a, const uint8_t* p,
                                                         __mmask16 mask) {
  const __m128i bytes = _mm_maskz_loadu_epi8(mask, p);
  const __m512i q = kAddend == Addend::s8 ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes);
  const __m512i from_zero = _mm512_sub_epi32(q, _mm512_set1_epi32(a.zero_point));
  return _mm512_mul_ps(_mm512_cvtepi32_ps(from_zero), _mm512_set1_ps(a.scale));
}

// Calls body(row) from the first row on.
template <int kRows, typename Body>
inline __attribute__((always_inline)) void for_rows(Tile& t, const Body& body) {
  body(t.r0);
  if constexpr (kRows > 1) body(t.r1);
  if constexpr (kRows > 2) body(t.r2);
  if constexpr (kRows > 3) body(t.r3);
  if constexpr (kRows > 4) body(t.r4);
  if constexpr (kRows > 5) body(t.r5);
}

// 16 columns of all rows from row r on, from sums to integers.
template <int kRows, Addend kAddend, __m512i Row::* kColumn>
inline __attribute__((always_inline)) void round_columns(const ByteFinish& f, Tile& t, int64_t r,
                                                         int64_t first) {
  const __m512i start = _mm512_loadu_si512(f.start + first);
  const __m512 scale = _mm512_loadu_ps(f.scale + first), bias = _mm512_loadu_ps(f.bias + first);
  [[maybe_unused]] const uint8_t* addend =
      kAddend == Addend::none ? nullptr : f.addend.data + r * f.addend.stride + first;
  [[maybe_unused]] const __mmask16 mask = static_cast<__mmask16>(first_bytes(f.cols) >> first);
  const auto round = [&](Row& row) {
    __m512 x = real_value(_mm512_add_epi32(row.*kColumn, start), scale, bias);
    if constexpr (kAddend != Addend::none) {
      x = _mm512_add_ps(x, load_addend<kAddend>(f.addend, addend, mask));
      addend += f.addend.stride;
    }
    row.*kColumn = quotient(x, f.rule.inverse);
  };
  for_rows<kRows>(t, round);
}

template <int kRows, Addend kAddend>
inline __attribute__((always_inline)) void round_tile(const ByteFinish& f, Tile& t, int64_t r) {
  round_columns<kRows, kAddend, &Row::c0>(f, t, r, 0);
  round_columns<kRows, kAddend, &Row::c1>(f, t, r, 16);
  round_columns<kRows, kAddend, &Row::c2>(f, t, r, 32);
  round_columns<kRows, kAddend, &Row::c3>(f, t, r, 48);
}

template <int kRows>
inline __attribute__((always_inline)) void finish_bytes(const ByteFinish& f, Tile& t, int64_t r) {
  if (f.addend.data == nullptr)
    round_tile<kRows, Addend::none>(f, t, r);
  else if (f.addend.is_signed)
    round_tile<kRows, Addend::s8>(f, t, r);
  else
    round_tile<kRows, Addend::u8>(f, t, r);
  uint8_t* out = f.out + r * f.out_stride;
  const auto put = [&](const Row& row) {
    store_bytes(out, bytes_of(row.c0, row.c1, row.c2, row.c3, f.rule), f.cols);
    out += f.out_stride;
  };
  for_rows<kRows>(t, put);
}

// Sums of earlier ranges of k.
template <int kRows>
inline __attribute__((always_inline)) void add_sums(Tile& t, const int32_t* c, int64_t stride) {
  const auto add = [](Row& row, const int32_t* old) {
    const Row o = load(old);
    row = {_mm512_add_epi32(row.c0, o.c0), _mm512_add_epi32(row.c1, o.c1), _mm512_add_epi32(row.c2, o.c2),
           _mm512_add_epi32(row.c3, o.c3)};
  };
  add(t.r0, c);
  if constexpr (kRows > 1) add(t.r1, c + stride);
  if constexpr (kRows > 2) add(t.r2, c + 2 * stride);
  if constexpr (kRows > 3) add(t.r3, c + 3 * stride);
  if constexpr (kRows > 4) add(t.r4, c + 4 * stride);
  if constexpr (kRows > 5) add(t.r5, c + 5 * stride);
}

// Cache lines to draw into L2, one in a step.
struct Lines {
  const int8_t* data;
  int64_t count;
};

// `steps` steps of 4 k; each also fetches a line at `next` if kFetch.
template <int kRows, bool kFetch>
inline __attribute__((always_inline)) void multiply_steps(Tile& t, const uint8_t*& a, int64_t a_stride,
                                                          const int8_t*& b, int64_t steps,
                                                          const int8_t* next) {
  for (int64_t q = 0; q < steps; ++q) {
    Row w = load(b);
    // Otherwise GCC 12 loads the weights again for every row of a low tile.
    if constexpr (kRows > 1) asm("" : "+v"(w.c0), "+v"(w.c1), "+v"(w.c2), "+v"(w.c3));
    if constexpr (kFetch) {
      fetch_to_l2(next);
      next += 64;
    }
    multiply(t.r0, a, w);
    if constexpr (kRows > 1) multiply(t.r1, a + a_stride, w);
    if constexpr (kRows > 2) multiply(t.r2, a + 2 * a_stride, w);
    if constexpr (kRows > 3) multiply(t.r3, a + 3 * a_stride, w);
    if constexpr (kRows > 4) multiply(t.r4, a + 4 * a_stride, w);
    if constexpr (kRows > 5) multiply(t.r5, a + 5 * a_stride, w);
    a += 4;
    b += kQuadBytes;
  }
}

// Rows r .. r + kRows of the block.
template <int kRows>
void tile(const GemmBlock& g, int64_t r, Lines weights, Lines input) {
  const __m512i zero = _mm512_setzero_si512();
  const Row zeros = {zero, zero, zero, zero};
  Tile t = {zeros, zeros, zeros, zeros, zeros, zeros};
  const uint8_t* a = g.a + r * g.a_stride;
  const int8_t* b = g.b;
  multiply_steps<kRows, true>(t, a, g.a_stride, b, weights.count, weights.data);
  multiply_steps<kRows, true>(t, a, g.a_stride, b, input.count, input.data);
  multiply_steps<kRows, false>(t, a, g.a_stride, b, g.quads - weights.count - input.count, nullptr);
  for (int64_t line = 1; line < g.lines; ++line) {
    a += g.line_stride - 4 * g.quads;
    multiply_steps<kRows, false>(t, a, g.a_stride, b, g.quads, nullptr);
  }
  int32_t* c = g.c + r * g.c_stride;
  if (g.accumulate) add_sums<kRows>(t, c, g.c_stride);
  if (g.finish != nullptr) return finish_tile<kRows>(*g.finish, t, r);
  if (g.finish_bytes != nullptr) return finish_bytes<kRows>(*g.finish_bytes, t, r);
  store(t.r0, c);
  if constexpr (kRows > 1) store(t.r1, c + g.c_stride);
  if constexpr (kRows > 2) store(t.r2, c + 2 * g.c_stride);
  if constexpr (kRows > 3) store(t.r3, c + 3 * g.c_stride);
  if constexpr (kRows > 4) store(t.r4, c + 4 * g.c_stride);
  if constexpr (kRows > 5) store(t.r5, c + 5 * g.c_stride);
}

using TileFn = void (*)(const GemmBlock& g, int64_t r, Lines weights, Lines input);
constexpr int64_t kTileRows = 6;
constexpr TileFn kTiles[kTileRows + 1] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};

// Tiles of equal height, one row more or less: 32 rows as 6 6 5 5 5 5, because a
// tile of 2 rows would wait for its own multiply-adds.
void block(const GemmBlock& g) {
  const int64_t tiles = (g.rows + kTileRows - 1) / kTileRows;
  int64_t lines = (g.next_bytes / 64 + tiles - 1) / tiles;
  if (lines > g.quads) lines = g.quads;
  int64_t input_lines = (g.input_bytes / 64 + tiles - 1) / tiles;
  if (input_lines > g.quads - lines) input_lines = g.quads - lines;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t r = g.rows * i / tiles;
    const int64_t end = g.rows * (i + 1) / tiles;
    for (int64_t j = r; j < end; ++j)
      for (int64_t byte = 0; byte < g.out_bytes; byte += 64) fetch_for_write(g.out + j * g.out_stride + byte);
    kTiles[end - r](g, r, {g.next + i * lines * 64, lines}, {g.input + i * input_lines * 64, input_lines});
  }
}

// One row reads every weight once: as fast as the memory below. Two sets of
// accumulators hide the latency of the multiply-add.
void gemv(const GemvRange& g) {
  constexpr int64_t kAhead = 4096;  // bytes between a load and its prefetch
  for (int64_t p = 0; p < g.panels; ++p) {
    const int8_t* b = g.b + p * g.panel_bytes;
    __m512i acc[2][4];
    for (auto& set : acc)
      for (__m512i& v : set) v = _mm512_setzero_si512();
    int64_t q = 0;
    for (; q + 2 <= g.quads; q += 2) {
      for (int s = 0; s < 2; ++s) {
        const __m512i x = broadcast(g.a + 4 * (q + s));
        const int8_t* w = b + (q + s) * kQuadBytes;
        for (int j = 0; j < 4; ++j) {
          _mm_prefetch(reinterpret_cast<const char*>(w + 64 * j + kAhead), _MM_HINT_T0);
          acc[s][j] = _mm512_dpbusd_epi32(acc[s][j], x, _mm512_load_si512(w + 64 * j));
        }
      }
    }
    if (q < g.quads) {
      const __m512i x = broadcast(g.a + 4 * q);
      for (int j = 0; j < 4; ++j)
        acc[0][j] = _mm512_dpbusd_epi32(acc[0][j], x, _mm512_load_si512(b + q * kQuadBytes + 64 * j));
    }
    for (int j = 0; j < 4; ++j)
      _mm512_storeu_si512(g.c + p * kPanelColumns + 16 * j, _mm512_add_epi32(acc[0][j], acc[1][j]));
  }
}

}  // namespace

extern const GemmKernels kGemmAvx512Vnni;
const GemmKernels kGemmAvx512Vnni = {.name = "6x64",
                                     .row_multiple = 1,
                                     .quad_multiple = 1,
                                     .row_unit = 6,
                                     .row_block = 12,
                                     .k_block = 1024,
                                     .finishes = true,
                                     .fetches_input = true,
                                     .takes_lines = true,
                                     .block = block,
                                     .gemv = gemv};

}  // namespace tae::kernels
