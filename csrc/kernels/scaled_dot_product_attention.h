// Attention of float rows: y = softmax(scale * q k^T + mask) v for a block of queries of one
// head. Single-threaded and torch-free; the op splits work over threads.
//
// Queries are the lanes of vectors, keys and channels are walked one by one: neither q k^T
// nor v needs another layout, and the softmax of a query is a loop over keys without sums
// across lanes. Scores stand in scratch for kKeyBlock keys at a time, each of which is summed by
// itself; older sums are scaled down when a larger score appears (Milakov and Gimelshein 2018).
//
//   s = sum of (scale * q[d]) * k[d] + mask    f32, d ascending, fused multiply-adds
//   e = exp(s - most)                          f32, exp of post_ops_constants.h
//   y = (sum of e * v) * (1 / sum of e)
//
// A query whose keys are all left out is 0, as in torch; a NaN among its scores makes it NaN.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"

namespace tae::kernels {

enum class MaskKind : uint8_t { none, f32, boolean };  // boolean: 1 takes part

struct SdpaBlock {
  const float* query = nullptr;  // of the first row; channels side by side in all three
  const float* key = nullptr;
  const float* value = nullptr;
  int64_t query_stride = 0, key_stride = 0, value_stride = 0;  // in elements, of rows
  int64_t queries = 0;                                         // 1 to SdpaKernels::queries
  int64_t first_query = 0;                                     // its position, for causal
  int64_t keys = 0, depth = 0, value_depth = 0;                // >= 0, 0, 1
  float scale = 1.f;
  bool causal = false;  // keys at positions above the query's are left out
  MaskKind mask_kind = MaskKind::none;
  const void* mask = nullptr;  // of the first query and key
  int64_t mask_query_stride = 0, mask_key_stride = 0;
  float* output = nullptr;
  int64_t output_stride = 0;
};

struct SdpaKernels {
  int64_t queries;  // of a block
  // scratch: sdpa_scratch() floats.
  void (*block)(const SdpaBlock& b, float* scratch);
};

constexpr int64_t kKeyBlock = 512;

// Floats of scratch for blocks of so many queries.
constexpr int64_t sdpa_scratch(int64_t queries, int64_t depth, int64_t value_depth) {
  return queries * (depth + value_depth + kKeyBlock);
}

// The table of the best level <= isa that has one (portable, avx2, avx512).
const SdpaKernels& sdpa_kernels(Isa isa);

}  // namespace tae::kernels
