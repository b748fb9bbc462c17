#include "kernels/transpose.h"

#include <emmintrin.h>

#include <algorithm>
#include <cstring>

namespace tae::kernels {
namespace {

constexpr int64_t kSide = 16;            // of a tile
constexpr int64_t kColumns = 4 * kSide;  // that a block of tiles has: whole cache lines of each row

// What may be read and written as whole vectors.
struct Limits {
  const uint8_t* src_end;
  uint8_t* dst_end;
  int64_t dst_stride;
};

template <bool kWhole>
__m128i load(const uint8_t* p, int64_t columns, const Limits& l) {
  if (kWhole || l.src_end - p >= kSide) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  alignas(16) uint8_t part[kSide] = {};
  std::memcpy(part, p, static_cast<size_t>(columns));
  return _mm_load_si128(reinterpret_cast<const __m128i*>(part));
}

// Writes 16 bytes where they fit: what lies behind a row is a later row, or later bytes of this one,
// which are not written yet.
template <bool kWhole>
void store(__m128i x, int64_t bytes, uint8_t* p, const Limits& l) {
  if (kWhole || l.dst_end - p >= kSide) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), x);
    return;
  }
  alignas(16) uint8_t part[kSide];
  _mm_store_si128(reinterpret_cast<__m128i*>(part), x);
  std::memcpy(p, part, static_cast<size_t>(bytes));
}

// 4 rows of 16 bytes as 16 groups of 4.
void interleave(const __m128i (&row)[4], __m128i* groups) {
  const __m128i lo01 = _mm_unpacklo_epi8(row[0], row[1]), hi01 = _mm_unpackhi_epi8(row[0], row[1]);
  const __m128i lo23 = _mm_unpacklo_epi8(row[2], row[3]), hi23 = _mm_unpackhi_epi8(row[2], row[3]);
  groups[0] = _mm_unpacklo_epi16(lo01, lo23);
  groups[1] = _mm_unpackhi_epi16(lo01, lo23);
  groups[2] = _mm_unpacklo_epi16(hi01, hi23);
  groups[3] = _mm_unpackhi_epi16(hi01, hi23);
}

// Rows [r, r + rows) and columns [c, c + columns), at most 16 each, to dst + r.
struct Tile {
  int64_t r, rows, c, columns;
};

template <bool kWhole>
void load_groups(const ByteRows& src, const Tile& t, int64_t first, const Limits& l, __m128i* groups) {
  __m128i row[4];
  for (int64_t i = 0; i < 4; ++i)
    row[i] = kWhole || first + i < t.rows
                 ? load<kWhole>(src.data + (t.r + first + i) * src.stride + t.c, t.columns, l)
                 : _mm_setzero_si128();
  interleave(row, groups);
}

// At most 4 rows: 4 bytes for each column.
void move_narrow(const ByteRows& src, const Tile& t, uint8_t* dst, const Limits& l) {
  alignas(16) uint8_t groups[4 * kSide];
  load_groups<false>(src, t, 0, l, reinterpret_cast<__m128i*>(groups));
  if (t.columns == kSide && l.dst_end - dst > kSide * l.dst_stride) {
    for (int64_t j = 0; j < kSide; ++j) std::memcpy(dst + j * l.dst_stride, groups + 4 * j, 4);
    return;
  }
  for (int64_t j = 0; j < t.columns; ++j, dst += l.dst_stride)
    std::memcpy(dst, groups + 4 * j, l.dst_end - dst >= 4 ? 4 : static_cast<size_t>(t.rows));
}

// kWhole: 16 rows and columns.
template <bool kWhole>
void move_tile(const ByteRows& src, const Tile& t, uint8_t* dst, const Limits& l) {
  __m128i groups[4][4];  // of rows, of columns
  for (int64_t i = 0; i < 4; ++i) load_groups<kWhole>(src, t, 4 * i, l, groups[i]);
  const int64_t columns = kWhole ? kSide : t.columns;
  for (int64_t j = 0; j < 4 && 4 * j < columns; ++j) {
    const __m128i lo01 = _mm_unpacklo_epi32(groups[0][j], groups[1][j]);
    const __m128i hi01 = _mm_unpackhi_epi32(groups[0][j], groups[1][j]);
    const __m128i lo23 = _mm_unpacklo_epi32(groups[2][j], groups[3][j]);
    const __m128i hi23 = _mm_unpackhi_epi32(groups[2][j], groups[3][j]);
    const __m128i column[4] = {_mm_unpacklo_epi64(lo01, lo23), _mm_unpackhi_epi64(lo01, lo23),
                               _mm_unpacklo_epi64(hi01, hi23), _mm_unpackhi_epi64(hi01, hi23)};
    for (int64_t i = 0; i < std::min<int64_t>(4, columns - 4 * j); ++i, dst += l.dst_stride)
      store<kWhole>(column[i], t.rows, dst, l);
  }
}

void move(const ByteRows& src, const Tile& t, uint8_t* dst, const Limits& l) {
  if (t.rows == kSide && t.columns == kSide)
    move_tile<true>(src, t, dst, l);
  else if (t.rows <= 4)
    move_narrow(src, t, dst, l);
  else
    move_tile<false>(src, t, dst, l);
}

}  // namespace

void transpose_bytes(const ByteRows& src, int64_t begin, int64_t end, const ByteColumns& dst) {
  const int64_t rest = src.rows % kSide;
  const Limits l = {src.data + src.rows * src.stride, dst.end, dst.stride};
  for (int64_t block = begin; block < end; block += kColumns) {
    const int64_t last = std::min(end, block + kColumns);
    const auto move_rows = [&](int64_t r, int64_t rows) {
      for (int64_t c = block; c < last; c += kSide)
        move(src, {r, rows, c, std::min(kSide, last - c)}, dst.data + (c - begin) * dst.stride + r, l);
    };
    // The last rows first: a store writes beyond them.
    if (rest > 0) move_rows(src.rows - rest, rest);
    for (int64_t r = 0; r + kSide <= src.rows; r += kSide) move_rows(r, kSide);
  }
}

void transpose_floats(const float* src, int64_t rows, int64_t columns, float* dst, int64_t dst_stride) {
  const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (int64_t c = 0; c < whole_columns; c += 4)
    for (int64_t r = 0; r < whole_rows; r += 4) {
      __m128 x[4];
      for (int64_t i = 0; i < 4; ++i) x[i] = _mm_loadu_ps(src + (r + i) * columns + c);
      _MM_TRANSPOSE4_PS(x[0], x[1], x[2], x[3]);
      for (int64_t i = 0; i < 4; ++i) _mm_storeu_ps(dst + (c + i) * dst_stride + r, x[i]);
    }
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = c < whole_columns ? whole_rows : 0; r < rows; ++r)
      dst[c * dst_stride + r] = src[r * columns + c];
}

}  // namespace tae::kernels
