// The kernels of sparse.h over a vector type V, which the including file defines:
//   T, Weight           a vector of dwords; a weight quad as `dot` wants it
//   kBytes              16, 32 or 64
//   load, store, zero, weight(int32_t), weights(const int8_t*), pair(uint64_t), dot(acc, x, w)
//   lo8, hi8, lo16, hi16   in-lane unpacks of bytes and words
#include <cstring>

#include "kernels/sparse.h"

namespace tae::kernels {
namespace {

inline int32_t load_dword(const void* p) {
  int32_t word;
  __builtin_memcpy(&word, p, 4);
  return word;
}

// Four weight quads, each to be repeated in a vector.
template <class V>
class FourQuads {
 public:
  explicit FourQuads(const int8_t* quads) : quads_(quads) {}
  auto repeat(int r) const { return V::weight(load_dword(quads_ + 4 * r)); }

 private:
  const int8_t* quads_;
};

// kVectors vectors of each weight row from byte `part` of each quad line.
template <class V, int kVectors, bool kAdd>
inline void rows4_part(const SparseRows4& w, const uint8_t* xt, int64_t part, int32_t* c) {
  const int8_t* values = w.values;
  const uint16_t* offsets = w.offsets;
  xt += part;
  c += part / 4;
  for (int64_t i = 0; i < w.count; ++i) {
    const SparseGroup4& group = w.groups[i];
    typename V::T acc[4][kVectors];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v)
        acc[r][v] = kAdd ? V::load(c + kQuadRows * group.local[r] + v * (V::kBytes / 4)) : V::zero();
    const uint16_t* const end = offsets + 4 * static_cast<int64_t>(group.steps);
    for (; offsets != end; offsets += 4, values += 16) {
      const FourQuads<V> quads(values);
      // One load for four offsets: loads are what limits the loop, and GCC would make four.
      uint64_t four;
      __builtin_memcpy(&four, offsets, 8);
      __asm__("" : "+r"(four));
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        const auto weight = quads.repeat(r);
        const uint8_t* x = xt + 8 * static_cast<uint64_t>(static_cast<uint16_t>(four >> (16 * r)));
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) acc[r][v] = V::dot(acc[r][v], V::load(x + v * V::kBytes), weight);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v)
        V::store(c + kQuadRows * group.local[r] + v * (V::kBytes / 4), acc[r][v]);
  }
}

template <class V, int kVectors>
inline void rows4_part(const SparseRows4& w, const uint8_t* xt, int64_t part, bool add, int32_t* c) {
  if (add)
    rows4_part<V, kVectors, true>(w, xt, part, c);
  else
    rows4_part<V, kVectors, false>(w, xt, part, c);
}

template <class V>
void rows4(const SparseRows4& w, const uint8_t* xt, int64_t rows, bool add, int32_t* c) {
  const int64_t bytes = rows > 16 ? 128 : 64;
  if (bytes == V::kBytes) return rows4_part<V, 1>(w, xt, 0, add, c);
  for (int64_t part = 0; part < bytes; part += 2 * V::kBytes) rows4_part<V, 2>(w, xt, part, add, c);
}

inline const uint8_t* line(const uint8_t* xt, uint32_t offset) {
  return xt + static_cast<int64_t>(offset) * (kByteLine / kTableLine);
}

// kRows weight rows from r0; input rows of one half of the unpacked bytes.
template <class V, int kRows, bool kWide, bool kHigh>
inline void rows8_part(const SparseRows8& w, const uint8_t* xt, int64_t part, int r0, int32_t* c) {
  typename V::T acc[kRows][2];
  for (auto& row : acc) row[0] = row[1] = V::zero();
  for (int64_t g = 0; g < w.groups; ++g) {
    const uint32_t* o = w.offsets + 4 * g;
    const auto l0 = V::load(line(xt, o[0]) + part), l1 = V::load(line(xt, o[1]) + part);
    const auto l2 = V::load(line(xt, o[2]) + part), l3 = V::load(line(xt, o[3]) + part);
    const auto a = kHigh ? V::hi8(l0, l1) : V::lo8(l0, l1);
    const auto b = kHigh ? V::hi8(l2, l3) : V::lo8(l2, l3);
    const auto q0 = V::lo16(a, b), q1 = V::hi16(a, b);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const auto weight = V::weight(load_dword(w.values + 64 * (g / 2) + 4 * (g % 2) + 8 * (r0 + r)));
      acc[r][0] = V::dot(acc[r][0], q0, weight);
      if (kWide) acc[r][1] = V::dot(acc[r][1], q1, weight);
    }
  }
  int32_t* out = c + (kHigh ? 32 : 0) + part / 4;
  for (int r = 0; r < kRows; ++r) {
    V::store(out + 64 * (r0 + r), acc[r][0]);
    if (kWide) V::store(out + 64 * (r0 + r) + 16, acc[r][1]);
  }
}

template <class V>
void rows8(const SparseRows8& w, const uint8_t* xt, int64_t rows, int32_t* c) {
  constexpr int kRows = V::kBytes == 64 ? 8 : 2;  // as many as the registers hold
  for (int64_t part = 0; part < 64; part += V::kBytes) {
    for (int r = 0; r < 8; r += kRows) {
      if (rows <= 16)
        rows8_part<V, kRows, false, false>(w, xt, part, r, c);
      else
        rows8_part<V, kRows, true, false>(w, xt, part, r, c);
      if (rows > 48)
        rows8_part<V, kRows, true, true>(w, xt, part, r, c);
      else if (rows > 32)
        rows8_part<V, kRows, false, true>(w, xt, part, r, c);
    }
  }
}

inline void to_table_plain(const uint8_t* x, int64_t k, uint32_t* table) {
  for (int64_t i = 0; i < k; ++i)
    for (int j = 0; j < 4; ++j) table[4 * i + j] = static_cast<uint32_t>(x[i]) << (8 * j);
}

// The input bytes of groups 2 * i and 2 * i + 1.
struct FromTable {
  static uint64_t pair(const SparseRows8& w, const void* input, int64_t i) {
    const char* t = static_cast<const char*>(input);
    const auto quad = [&](const uint32_t* o) {
      return static_cast<uint32_t>(load_dword(t + o[0]) | load_dword(t + o[1] + 4) |
                                   load_dword(t + o[2] + 8) | load_dword(t + o[3] + 12));
    };
    const uint32_t* o = w.offsets + 8 * i;
    return quad(o) | static_cast<uint64_t>(quad(o + 4)) << 32;
  }
};
struct FromQuads {
  static uint64_t pair(const SparseRows8& w, const void* input, int64_t i) {
    uint64_t quads;
    std::memcpy(&quads, static_cast<const uint8_t*>(input) + 8 * size_t{w.spots[i]}, 8);
    return quads;
  }
};

// The two groups of a row are summed up side by side.
template <class V, class Input>
void gemv8(const SparseRows8& w, const int32_t* pairs, int64_t rows, const void* input, int32_t* c) {
  constexpr int kVectors = 64 / V::kBytes;
  int64_t i = 0;
  for (int64_t r = 0; r < rows; ++r) {
    typename V::T acc[kVectors];
    for (auto& v : acc) v = V::zero();
    for (const int64_t end = i + pairs[r]; i < end; ++i) {
      const auto x = V::pair(Input::pair(w, input, i));
      for (int v = 0; v < kVectors; ++v)
        acc[v] = V::dot(acc[v], x, V::weights(w.values + 64 * i + v * V::kBytes));
    }
    int32_t sums[16];
    for (int v = 0; v < kVectors; ++v) V::store(sums + v * (V::kBytes / 4), acc[v]);
    for (int n = 0; n < 8; ++n) c[8 * r + n] = sums[2 * n] + sums[2 * n + 1];
  }
}

inline void transpose16_plain(const int32_t* src, int64_t src_stride, int32_t* dst, int64_t dst_stride) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) dst[j * dst_stride + i] = src[i * src_stride + j];
}

inline void to_quads_plain(const uint8_t* x, int64_t stride, int64_t rows, int64_t quads, uint8_t* xt) {
  const int64_t filled = rows > 16 ? 32 : 16;
  for (int64_t q = 0; q < quads; ++q) {
    for (int64_t m = 0; m < rows; ++m) std::memcpy(xt + q * kQuadLine + 4 * m, x + m * stride + 4 * q, 4);
    std::memset(xt + q * kQuadLine + 4 * rows, 0, static_cast<size_t>(4 * (filled - rows)));
  }
}

// Where input row m stands in a line of bytes.
inline int64_t byte_of_row(int64_t m) { return 16 * (m / 4 % 4) + 4 * (m / 16) + m % 4; }

inline void to_bytes_plain(const uint8_t* x, int64_t stride, int64_t rows, int64_t quads, uint8_t* xt) {
  std::memset(xt, 0, static_cast<size_t>(4 * quads * kByteLine));
  for (int64_t m = 0; m < rows; ++m) {
    uint8_t* out = xt + byte_of_row(m);
    for (int64_t k = 0; k < 4 * quads; ++k) out[k * kByteLine] = x[m * stride + k];
  }
}

}  // namespace
}  // namespace tae::kernels
