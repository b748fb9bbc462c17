// Rows of quantized embedding tables: lookups, weighted sums and maxima over lists of
// rows, quantization of float rows. Single-threaded and torch-free.
//
// A row is torch's fused row-wise format: dim codes of `bits` bits (8, 4, 2; the first
// element in the lowest bits of a byte), then scale and bias, f32 at 8 bits and f16
// below. Element d is scale * code[d] + bias. One place a row: the fewest cache lines.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "core/dtype.h"

namespace tae::kernels {

struct EmbeddingTable {
  const uint8_t* rows = nullptr;
  int64_t stride = 0;  // bytes from row to row, >= embedding_row_bytes(dim, bits)
  int64_t count = 0;   // rows
  int64_t dim = 0;
  int bits = 8;
};

constexpr int64_t embedding_tail_bytes(int bits) { return bits == 8 ? 8 : 4; }
constexpr int64_t embedding_code_bytes(int64_t dim, int bits) { return (dim + 8 / bits - 1) / (8 / bits); }
constexpr int64_t embedding_row_bytes(int64_t dim, int bits) {
  return embedding_code_bytes(dim, bits) + embedding_tail_bytes(bits);
}

// What the caller wrote: indices into the table, or into `mapping`, whose entries are
// rows of the table or -1 for a pruned row (one of zeros).
struct EmbeddingIndices {
  const void* data = nullptr;
  bool wide = true;  // int64, else int32
  const int32_t* mapping = nullptr;
  int64_t mapping_size = 0;
  int64_t padding = -1;  // this index is passed over; -1: none is
};

// Byte offsets of rows inside the table; negative ones are no rows.
constexpr int64_t kPaddingRow = -1;
constexpr int64_t kPrunedRow = -2;

// offsets[0 .. count + ahead) can be read; those beyond count are only prefetched.
struct EmbeddingRun {
  const int64_t* offsets = nullptr;
  const float* weights = nullptr;  // null: 1 for all
  int64_t count = 0;
  int64_t ahead = 0;
};

// Cuts a run into bags: bag b has its entries from begins[b] - begins[0] to begins[b + 1] - begins[0].
struct EmbeddingBags {
  const int64_t* begins = nullptr;  // [count + 1], ascending
  int64_t count = 0;
  bool mean = false;  // divide by the number of rows that are no padding
};

// Adding the bias once for so many rows saves an addition an element; waiting longer
// costs accuracy, because codes are positive and the total grows without their bias.
constexpr int64_t kBiasRows = 64;

// Results are the same bits on every ISA: f32, `a * b + c` is rounded once (emulated
// where the CPU has no FMA). The caller holds a DefaultFloatEnv (vec_float_env.h): set once for many bags.
struct EmbeddingKernels {
  // Indices [begin, begin + count) as offsets. Returns the first position that is out
  // of range (offsets are then of no use), or -1. Nothing is read through a bad index.
  int64_t (*resolve)(const EmbeddingTable&, const EmbeddingIndices&, int64_t begin, int64_t count,
                     int64_t* offsets);
  // Fetches rows into the cache.
  void (*prefetch)(const EmbeddingTable&, const int64_t* offsets, int64_t count);
  // dst[b][d] = sum_i w_i * (scale_i * code_i[d] + bias_i): total = 0; for each kBiasRows
  // entries of a bag in order, total += (w_i * scale_i) * code_i[d], then total += the sum of
  // their w_i * bias_i; last, the mean's division. Padding and pruned rows add nothing. bf16:
  // rounded at the end.
  void (*sum_f32)(const EmbeddingTable&, const EmbeddingRun&, const EmbeddingBags&, float* dst);
  void (*sum_bf16)(const EmbeddingTable&, const EmbeddingRun&, const EmbeddingBags&, uint16_t* dst);
  // dst[d] = max_i (scale_i * code_i[d] + bias_i), NaN passed over, -inf without rows;
  // a pruned row counts as 0. Weights are not looked at.
  void (*max)(const EmbeddingTable&, const EmbeddingRun&, float* dst);
  // Rows one after the other, [count][dim]; 0 for what is no row.
  void (*rows_f32)(const EmbeddingTable&, const EmbeddingRun&, float* dst);
  void (*rows_bf16)(const EmbeddingTable&, const EmbeddingRun&, uint16_t* dst);
  // row[d] += part[d] and row[d] /= divisor.
  void (*add)(const float* part, int64_t count, float* row);
  void (*divide)(float divisor, int64_t count, float* row);
  void (*to_bf16)(const float* src, int64_t count, uint16_t* dst);
  // codes[d] = clamp(round_half_even((src[d] - low) * inverse), 0, 2^bits - 1), packed;
  // unused bits of the last byte are 0.
  void (*quantize_f32)(const float* src, int64_t dim, int bits, float low, float inverse, uint8_t* codes);
  void (*quantize_bf16)(const uint16_t* src, int64_t dim, int bits, float low, float inverse, uint8_t* codes);
};

// The table of the best level <= isa that has one (portable, avx2, avx512).
const EmbeddingKernels& embedding_kernels(Isa isa);

}  // namespace tae::kernels
