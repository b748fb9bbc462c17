// The rule of engines/attention.h as plain loops, sums of 64 bits.
#include "engines/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engines/reference/operand.h"
#include "engines/reference/output.h"
#include "kernels/post_ops.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

using reference::centred;

// scores[j] of one query and each key that it sees; the largest, NaN with a NaN or +inf among them.
float score(const AttentionProblem& p, int64_t matrix, int64_t query, std::vector<float>* scores) {
  float most = -INFINITY;
  bool numbers = true;
  for (size_t j = 0; j < scores->size(); ++j) {
    const auto key = static_cast<int64_t>(j);
    int64_t sum = 0;
    for (int64_t e = 0; e < p.width; ++e)
      sum += centred(p.q, matrix, query, e) * centred(p.k, matrix, key, e);
    float s = static_cast<float>(sum) * p.scale;
    if (p.mask != nullptr) s += p.mask[p.mask_offset[matrix] + query * p.mask_row_stride + key];
    (*scores)[j] = s;
    most = std::max(most, s);
    numbers = numbers && s < INFINITY;
  }
  return numbers ? most : NAN;
}

[[gnu::noinline]] void attend(const AttentionProblem& p) {
  for (int64_t i = 0; i < p.batch * p.queries; ++i) {
    const int64_t matrix = i / p.queries, query = i % p.queries;
    std::vector<float> weights(static_cast<size_t>(p.causal ? std::min(p.keys, query + 1) : p.keys));
    const float most = score(p, matrix, query, &weights);
    int64_t total = 0;
    for (float& w : weights) {
      w = most > -INFINITY ? std::nearbyintf(kernels::exp_nonpositive(w - most) * 255.f) : 0.f;
      total += static_cast<int64_t>(w);
    }
    const float factor = total > 0 ? p.v.scale / static_cast<float>(total) : 0.f;
    for (int64_t c = 0; c < p.value_width; ++c) {
      int64_t sum = 0;
      for (size_t j = 0; j < weights.size(); ++j)
        sum += static_cast<int64_t>(weights[j]) * centred(p.v, matrix, static_cast<int64_t>(j), c);
      float r = static_cast<float>(sum) * (std::isnan(most) ? NAN : factor);
      if (is_quantized(p.finish.dtype)) r *= p.finish.inverse_scale;
      reference::store(p.output, p.finish.dtype, i * p.value_width + c, r, 1.f, p.finish.zero_point);
    }
  }
}

void run(const AttentionProblem& p) {
  const kernels::DefaultFloatEnv env;
  attend(p);
}

}  // namespace

Result<AttentionRun> find_attention_reference(const AttentionProblem&) { return AttentionRun{run}; }

}  // namespace tae
