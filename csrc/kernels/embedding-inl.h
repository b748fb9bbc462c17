// The embedding kernels over vec.h's vectors, included once by embedding.cpp and each
// embedding__<isa>.cpp; see embedding.h.
#pragma once

#include "kernels/embedding_codes-inl.h"
#include "kernels/embedding_sums-inl.h"
#include "kernels/rows_run-inl.h"
#include "kernels/vec_float_env.h"

namespace tae::kernels {
namespace {

template <int kBits, typename T>
[[gnu::noinline]] void copy_rows(const EmbeddingTable& table, const EmbeddingRun& run, T* dst) noexcept {
  const int64_t code_bytes = embedding_code_bytes(table.dim, kBits);
  const int64_t row_bytes = embedding_row_bytes(table.dim, kBits);
  constexpr int64_t kElements = static_cast<int64_t>(kLanes) * kPhases<kBits>;
  for (int64_t i = 0; i < run.count; ++i, dst += table.dim) {
    const uint8_t* next = table.rows + run.offsets[i + run.ahead];
    for (int64_t byte = 0; byte < row_bytes; byte += 64) prefetch_line(next + byte);
    prefetch_line(next + row_bytes - 1);
    const int64_t offset = run.offsets[i];
    if (__builtin_expect(offset < 0, 0)) {
      std::memset(dst, 0, static_cast<size_t>(table.dim) * sizeof(T));
      continue;
    }
    const uint8_t* row = table.rows + offset;
    const ScaleBias s = load_scale_bias<kBits>(row + code_bytes);
    const VF scale = vf(s.scale), bias = vf(s.bias);
    int64_t byte = 0;
    VF v[kPhases<kBits>];
    const auto finish = [&](int64_t n) {
#pragma GCC unroll 4
      for (int p = 0; p < kPhases<kBits>; ++p) v[p] = fma(scale, v[p], bias);
      store_elements(dst + byte * kPhases<kBits>, v, n);
    };
    for (; (byte + kLanes) * kPhases<kBits> <= table.dim; byte += kLanes) {
      Codes<kBits>::full(row + byte, v);
      finish(kElements);
    }
    if (byte < code_bytes) {
      Codes<kBits>::last(row + byte, code_bytes - byte, v);
      finish(table.dim - byte * kPhases<kBits>);
    }
  }
}

// All positions are looked at without a branch; only a bad one makes a second pass.
template <typename Index>
[[gnu::noinline]] int64_t resolve_plain(const EmbeddingTable& table, const Index* indices, int64_t count,
                                        int64_t* offsets) noexcept {
  const uint64_t rows = static_cast<uint64_t>(table.count), stride = static_cast<uint64_t>(table.stride);
  uint64_t bad = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t row = static_cast<uint64_t>(static_cast<int64_t>(indices[i]));
    bad |= row >= rows ? 1 : 0;
    offsets[i] = static_cast<int64_t>(row * stride);
  }
  if (bad == 0) return -1;
  for (int64_t i = 0; i < count; ++i)
    if (static_cast<uint64_t>(static_cast<int64_t>(indices[i])) >= rows) return i;
  return 0;  // another thread changed the indices meanwhile
}

template <typename Index>
[[gnu::noinline]] int64_t resolve_mapped(const EmbeddingTable& table, const EmbeddingIndices& of,
                                         const Index* indices, int64_t count, int64_t* offsets) noexcept {
  const int64_t limit = of.mapping != nullptr ? of.mapping_size : table.count;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t index = indices[i];
    if (index < 0 || index >= limit) return i;
    int64_t row = index;
    if (of.mapping != nullptr) row = of.mapping[index];
    if (row < -1 || row >= table.count) return i;
    offsets[i] = index == of.padding ? kPaddingRow : row < 0 ? kPrunedRow : row * table.stride;
  }
  return -1;
}

template <typename Index>
TAE_VEC int64_t resolve_as(const EmbeddingTable& table, const EmbeddingIndices& of, int64_t begin,
                           int64_t count, int64_t* offsets) {
  const Index* indices = static_cast<const Index*>(of.data) + begin;
  const int64_t bad = of.mapping == nullptr && of.padding < 0
                          ? resolve_plain(table, indices, count, offsets)
                          : resolve_mapped(table, of, indices, count, offsets);
  return bad < 0 ? bad : begin + bad;
}

int64_t resolve(const EmbeddingTable& table, const EmbeddingIndices& of, int64_t begin, int64_t count,
                int64_t* offsets) {
  return of.wide ? resolve_as<int64_t>(table, of, begin, count, offsets)
                 : resolve_as<int32_t>(table, of, begin, count, offsets);
}

void prefetch(const EmbeddingTable& table, const int64_t* offsets, int64_t count) {
  const int64_t row_bytes = embedding_row_bytes(table.dim, table.bits);
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* row = table.rows + offsets[i];
    for (int64_t byte = 0; byte < row_bytes; byte += 64) prefetch_line(row + byte);
    prefetch_line(row + row_bytes - 1);
  }
}

template <typename T>
void sum(const EmbeddingTable& table, const EmbeddingRun& run, const EmbeddingBags& bags, T* dst) {
  if (table.bits == 8) {
    sum_bits<8>(table, run, bags, dst);
  } else if (table.bits == 4) {
    sum_bits<4>(table, run, bags, dst);
  } else {
    sum_bits<2>(table, run, bags, dst);
  }
}

void max(const EmbeddingTable& table, const EmbeddingRun& run, float* dst) {
  if (table.bits == 8) {
    max_bits<8>(table, run, dst);
  } else if (table.bits == 4) {
    max_bits<4>(table, run, dst);
  } else {
    max_bits<2>(table, run, dst);
  }
}

template <typename T>
void rows(const EmbeddingTable& table, const EmbeddingRun& run, T* dst) {
  if (table.bits == 8) {
    copy_rows<8>(table, run, dst);
  } else if (table.bits == 4) {
    copy_rows<4>(table, run, dst);
  } else {
    copy_rows<2>(table, run, dst);
  }
}

// Elementwise steps between runs: as wide as the compiler makes them.
void add_row(const float* part, int64_t count, float* row) noexcept {
  for (int64_t i = 0; i < count; ++i) row[i] += part[i];
}

void divide_row(float divisor, int64_t count, float* row) noexcept {
  for (int64_t i = 0; i < count; ++i) row[i] /= divisor;
}

void to_bf16(const float* src, int64_t count, uint16_t* dst) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store_bf16(dst + i, load(src + i, Full{}), Full{});
  if (i < count) store_bf16(dst + i, load(src + i, Part(count - i)), Part(count - i));
}

template <typename T>
[[gnu::noinline]] void quantize_codes(const T* src, int64_t dim, int bits, float low, float inverse,
                                      uint8_t* codes) noexcept {
  constexpr int64_t kChunk = 256;  // a multiple of kLanes and of the codes in a byte
  const VF bottom = vf(low), factor = vf(inverse), most = vf(static_cast<float>((1 << bits) - 1));
  uint8_t whole[kChunk] = {};
  for (int64_t begin = 0; begin < dim; begin += kChunk) {
    const int64_t n = dim - begin < kChunk ? dim - begin : kChunk;
    const auto quantize = [&](VF x) {
      // Bounds before rounding: the same integers, and nothing too large to convert.
      return to_int(min(max(mul(sub(x, bottom), factor), vf(0.f)), most));
    };
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      store_low8(whole + i, quantize(load_real(src + begin + i, Full{})), Full{});
    if (i < n) {
      std::memset(whole + i, 0, static_cast<size_t>(kChunk - i));
      const Part part(n - i);
      store_low8(whole + i, quantize(load_real(src + begin + i, part)), part);
    }
    uint8_t* to = codes + begin * bits / 8;
    if (bits == 8) {
      std::memcpy(to, whole, static_cast<size_t>(n));
    } else if (bits == 4) {
      for (int64_t b = 0; b < (n + 1) / 2; ++b)
        to[b] = static_cast<uint8_t>(whole[2 * b] | (whole[2 * b + 1] << 4));
    } else {
      for (int64_t b = 0; b < (n + 3) / 4; ++b)
        to[b] = static_cast<uint8_t>(whole[4 * b] | (whole[4 * b + 1] << 2) | (whole[4 * b + 2] << 4) |
                                     (whole[4 * b + 3] << 6));
    }
  }
}

template <typename T>
void quantize_entry(const T* src, int64_t dim, int bits, float low, float inverse, uint8_t* codes) {
  const DefaultFloatEnv env;
  quantize_codes(src, dim, bits, low, inverse, codes);
}

constexpr EmbeddingKernels kEmbeddingKernels = {
    resolve,
    prefetch,
    sum<float>,
    sum<uint16_t>,
    max,
    rows<float>,
    rows<uint16_t>,
    add_row,
    divide_row,
    to_bf16,
    quantize_entry<float>,
    quantize_entry<uint16_t>,
};

}  // namespace
}  // namespace tae::kernels
