// Attention of float rows between unmapped pages, against the formula in double, every level.
#include "kernels/scaled_dot_product_attention.h"

#include <catch2/catch_test_macros.hpp>
#include <random>
#include <vector>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace {

// y of one query by the formula; `added` is the mask of one key.
template <typename Added>
std::vector<double> expected(const SdpaBlock& b, int64_t query, const Added& added) {
  std::vector<double> y(b.value_depth);
  const int64_t keys = b.causal ? std::min(b.keys, b.first_query + query + 1) : b.keys;
  std::vector<double> score(keys);
  double most = -INFINITY, sum = 0;
  for (int64_t k = 0; k < keys; ++k) {
    for (int64_t d = 0; d < b.depth; ++d)
      score[k] += double{b.scale} * b.query[query * b.query_stride + d] * b.key[k * b.key_stride + d];
    score[k] += added(k);
    most = std::max(most, score[k]);
  }
  for (int64_t k = 0; k < keys && most > -INFINITY; ++k) {
    const double e = std::exp(score[k] - most);
    sum += e;
    for (int64_t d = 0; d < b.value_depth; ++d) y[d] += e * b.value[k * b.value_stride + d];
  }
  for (double& v : y) v = sum > 0 ? v / sum : 0;
  return y;
}

}  // namespace

TEST_CASE("scaled_dot_product_attention: blocks of queries equal the formula", "[sdpa]") {
  std::mt19937 rng(1);
  for (Isa isa : kernel_levels()) {
    const SdpaKernels& kernel = sdpa_kernels(isa);
    for (int64_t keys : {0, 1, 3, 511, 513, 1030})
      for (int64_t depth : {0, 1, 5, 16})
        for (const MaskKind kind : {MaskKind::none, MaskKind::f32, MaskKind::boolean}) {
          const Edge edge = keys % 2 == 0 ? Edge::kStart : Edge::kEnd;
          SdpaBlock b;
          b.queries = 1 + static_cast<int64_t>(rng() % static_cast<uint64_t>(kernel.queries));
          b.first_query = static_cast<int64_t>(rng() % 600);
          b.keys = keys;
          b.depth = depth;
          b.value_depth = 1 + static_cast<int64_t>(rng() % 20);
          b.scale = 0.4f;
          b.causal = kind == MaskKind::none && rng() % 2 == 0;
          Guarded<float> q(b.queries * depth, edge), k(keys * depth, edge), v(keys * b.value_depth, edge);
          Guarded<float> added(b.queries * keys, edge), y(b.queries * b.value_depth, edge);
          Guarded<float> scratch(sdpa_scratch(kernel.queries, depth, b.value_depth), Edge::kStart);
          Guarded<uint8_t> seen(b.queries * keys, edge);
          for (Guarded<float>* x : {&q, &k, &v, &added})
            for (float& value : *x) value = random_float(rng, -1.f, 1.f);
          for (int64_t i = 0; i < seen.size(); ++i) {
            seen[i] = i < keys || rng() % 3 == 0 ? 0 : 1;  // the first query sees no key
            if (seen[i] == 0) added[i] = -INFINITY;
          }
          b.query = q.data();
          b.key = k.data();
          b.value = v.data();
          b.query_stride = b.key_stride = depth;
          b.value_stride = b.output_stride = b.value_depth;
          b.mask_kind = kind;
          b.mask = kind == MaskKind::f32 ? static_cast<const void*>(added.data()) : seen.data();
          b.mask_query_stride = keys;
          b.mask_key_stride = 1;
          b.output = y.data();
          kernel.block(b, scratch.data());
          for (int64_t i = 0; i < b.queries; ++i) {
            const auto mask = [&](int64_t key) {
              if (kind == MaskKind::none) return 0.;
              return kind == MaskKind::f32 ? double{added[i * keys + key]}
                                           : (seen[i * keys + key] != 0 ? 0. : -INFINITY);
            };
            const std::vector<double> want = expected(b, i, mask);
            for (int64_t d = 0; d < b.value_depth; ++d) {
              INFO(name_of(isa) << ", " << keys << " keys, depth " << depth << ", query " << i);
              REQUIRE(std::abs(y[i * b.value_depth + d] - want[d]) < 1e-5);
            }
          }
        }
  }
}
