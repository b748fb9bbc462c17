// Attention over vec.h's vectors, included once by scaled_dot_product_attention.cpp and each
// scaled_dot_product_attention__<isa>.cpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels/post_ops-inl.h"
#include "kernels/scaled_dot_product_attention.h"
#include "kernels/vec_float_env.h"

namespace tae::kernels {
namespace {

// A block is kWide vectors of queries; a tile kTile rows (keys, or channels of v) of them.
constexpr int kWide = 2;
constexpr int kTile = kLanes == 16 ? 8 : 4;
constexpr int64_t kBlock = kWide * kLanes;
constexpr float kLowest = std::numeric_limits<float>::lowest();  // only -inf is below

// sums[r][w] += sum over i < count of rows[r * row_stride + i * step] * lanes[i][w].
template <int kRows>
TAE_VEC void accumulate(VF (&sums)[kRows][kWide], const float* rows, int64_t row_stride, int64_t step,
                        const float* lanes, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    VF x[kWide];
    for (int w = 0; w < kWide; ++w) x[w] = load(lanes + i * kBlock + w * kLanes, Full{});
    for (int r = 0; r < kRows; ++r) {
      const VF row = vf(rows[r * row_stride + i * step]);
      for (int w = 0; w < kWide; ++w) sums[r][w] = fma(row, x[w], sums[r][w]);
    }
  }
}

// Calls body of so many rows at once, first row: kTile of them, then 4, 2 and 1.
template <typename Body>
TAE_VEC void for_tiles(int64_t rows, const Body& body) {
  int64_t r = 0;
  for (; r + kTile <= rows; r += kTile) body(std::integral_constant<int, kTile>{}, r);
  if (rows - r >= 4) body(std::integral_constant<int, 4>{}, r), r += 4;
  if (rows - r >= 2) body(std::integral_constant<int, 2>{}, r), r += 2;
  if (rows - r >= 1) body(std::integral_constant<int, 1>{}, r);
}

// scale * q as [depth][kBlock], 0 in lanes without a query.
void pack_queries(const SdpaBlock& b, float* lanes) {
  if (b.queries < kBlock) std::fill_n(lanes, b.depth * kBlock, 0.f);
  for (int64_t i = 0; i < b.queries; ++i)
    for (int64_t d = 0; d < b.depth; ++d) lanes[d * kBlock + i] = b.query[i * b.query_stride + d] * b.scale;
}

// The mask of one key for all queries of the block: what is added to their scores.
void mask_of_key(const SdpaBlock& b, int64_t key, float* lanes) {
  if (b.mask_kind == MaskKind::f32) {
    const float* m = static_cast<const float*>(b.mask) + key * b.mask_key_stride;
    for (int64_t i = 0; i < b.queries; ++i) lanes[i] = m[i * b.mask_query_stride];
  } else {
    const uint8_t* m = static_cast<const uint8_t*>(b.mask) + key * b.mask_key_stride;
    for (int64_t i = 0; i < b.queries; ++i) lanes[i] = m[i * b.mask_query_stride] != 0 ? 0.f : -INFINITY;
  }
}

// Scores of keys [first, first + count) as [count][kBlock].
void score(const SdpaBlock& b, const float* lanes, int64_t first, int64_t count, float* scores) {
  for_tiles(count, [&](auto rows, int64_t r) __attribute__((always_inline)) {
    constexpr int kRows = rows;
    VF sums[kRows][kWide];
    for (auto& row : sums)
      for (VF& s : row) s = vf(0.f);
    accumulate(sums, b.key + (first + r) * b.key_stride, b.key_stride, 1, lanes, b.depth);
    for (int k = 0; k < kRows; ++k)
      for (int w = 0; w < kWide; ++w) store(scores + (r + k) * kBlock + w * kLanes, sums[k][w], Full{});
  });
  if (b.mask_kind != MaskKind::none) {
    alignas(64) float added[kBlock] = {};
    for (int64_t k = 0; k < count; ++k) {
      if (k == 0 || b.mask_key_stride != 0) mask_of_key(b, first + k, added);
      for (int64_t i = 0; i < kBlock; i += kLanes)
        store(scores + k * kBlock + i, add(load(scores + k * kBlock + i, Full{}), load(added + i, Full{})),
              Full{});
    }
  }
  if (b.causal) {
    for (int64_t k = std::max<int64_t>(0, b.first_query + 1 - first); k < count; ++k)
      std::fill_n(scores + k * kBlock, std::min(first + k - b.first_query, kBlock), -INFINITY);
  }
}

// The largest score so far and the sum of e, of each query.
struct Running {
  VF most[kWide], sum[kWide];
};

// Scores become e in place; sums follow. Returns whether older sums of e * v must be scaled by `factor`.
TAE_VEC bool exponentials(Running& run, int64_t count, float* scores, float (&factor)[kBlock]) {
  bool rescale = false;
  for (int w = 0; w < kWide; ++w) {
    float* at = scores + w * kLanes;
    const VF before = run.most[w];
    VF most = before;
    for (int64_t k = 0; k < count; ++k) most = max(load(at + k * kBlock, Full{}), most);
    // Nothing but -inf so far: its difference to itself is no number.
    const VF shift = select(less(most, vf(kLowest)), vf(0.f), most);
    const VF left = exp_nonpositive(sub(before, shift));
    run.most[w] = most;
    VF sum = vf(0.f);  // of this block alone: added to all before it, small e would lose their bits
    store(factor + w * kLanes, left, Full{});
    rescale |= any(less(before, most));
    for (int64_t k = 0; k < count; ++k) {
      const VF e = exp_nonpositive(sub(load(at + k * kBlock, Full{}), shift));
      store(at + k * kBlock, e, Full{});
      sum = add(sum, e);
    }
    run.sum[w] = add(mul(run.sum[w], left), sum);
  }
  return rescale;
}

[[gnu::noinline]] void run_block(const SdpaBlock& b, float* scratch) {
  float* const lanes = scratch;
  float* const sums = lanes + b.depth * kBlock;
  float* const scores = sums + b.value_depth * kBlock;
  pack_queries(b, lanes);
  std::fill_n(sums, b.value_depth * kBlock, 0.f);
  Running run;
  for (int w = 0; w < kWide; ++w) run.most[w] = vf(-INFINITY), run.sum[w] = vf(0.f);
  const int64_t keys = b.causal ? std::min(b.keys, b.first_query + b.queries) : b.keys;
  for (int64_t first = 0; first < keys; first += kKeyBlock) {
    const int64_t count = std::min(keys - first, kKeyBlock);
    score(b, lanes, first, count, scores);
    alignas(64) float factor[kBlock];
    const bool rescale = exponentials(run, count, scores, factor) && first > 0;
    for_tiles(b.value_depth, [&](auto rows, int64_t r) __attribute__((always_inline)) {
      constexpr int kRows = rows;
      VF y[kRows][kWide];
      for (auto& row : y)
        for (VF& sum : row) sum = vf(0.f);
      accumulate(y, b.value + first * b.value_stride + r, 1, b.value_stride, scores, count);
      for (int d = 0; d < kRows; ++d)
        for (int w = 0; w < kWide; ++w) {
          float* const at = sums + (r + d) * kBlock + w * kLanes;
          VF older = load(at, Full{});
          if (rescale) older = mul(older, load(factor + w * kLanes, Full{}));
          store(at, add(older, y[d][w]), Full{});
        }
    });
  }
  alignas(64) float total[kBlock];
  for (int w = 0; w < kWide; ++w) {
    // All left out: 0 * 1 instead of 0 / 0.
    const VF whole = select(less(run.most[w], vf(kLowest)), vf(1.f), run.sum[w]);
    store(total + w * kLanes, div(vf(1.f), whole), Full{});
  }
  for (int64_t i = 0; i < b.queries; ++i)
    for (int64_t d = 0; d < b.value_depth; ++d)
      b.output[i * b.output_stride + d] = sums[d * kBlock + i] * total[i];
}

void block(const SdpaBlock& b, float* scratch) {
  const DefaultFloatEnv env;
  run_block(b, scratch);
}

constexpr SdpaKernels kSdpaKernels = {kBlock, block};

}  // namespace
}  // namespace tae::kernels
