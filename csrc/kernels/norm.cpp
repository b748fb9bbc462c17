// Portable kernels, the choice of a level, and the coefficients of channels.
#include "kernels/norm.h"

#include "kernels/norm-inl.h"

namespace tae::kernels {
namespace {

[[gnu::noinline]] void group_run(const GroupNumbers& g, const Operand& input, const ByteSums* sums, float* a,
                                 float* b) noexcept {
  const int64_t size = g.channels / g.groups;
  const int32_t zero_point = input.zero_point + shift_of(input.dtype);
  for (int64_t first = 0; first < g.channels; first += size) {
    ByteSums pool[kStatRows];
    ByteSums& all = pool[0];
    for (int64_t c = first; c < first + size; ++c) {
      all.sum += sums[c].sum;
      all.squares += sums[c].squares;
    }
    RowStats stats;
    row_stats(pool, size * g.count, zero_point, input.scale, g.eps, true, &stats);
    const double mean = stats.mean[0], factor = static_cast<double>(input.scale) * (1. / stats.root[0]);
    for (int64_t c = first; c < first + size; ++c) {
      const double f = g.weight == nullptr ? factor : factor * static_cast<double>(g.weight[c]);
      const double bias = g.bias == nullptr ? 0. : static_cast<double>(g.bias[c]);
      a[c] = static_cast<float>(f * g.factor);
      b[c] = static_cast<float>((bias - mean * f) * g.factor);
    }
  }
}

[[gnu::noinline]] void batch_run(const BatchNumbers& n, float scale, float* a, float* b) noexcept {
  for (int64_t c = 0; c < n.channels; ++c) {
    const double k = 1. / std::sqrt(static_cast<double>(n.var[c]) + n.eps);
    const double f = n.weight == nullptr ? k : k * static_cast<double>(n.weight[c]);
    const double bias = n.bias == nullptr ? 0. : static_cast<double>(n.bias[c]);
    a[c] = static_cast<float>(static_cast<double>(scale) * f * n.factor);
    b[c] = static_cast<float>((bias - static_cast<double>(n.mean[c]) * f) * n.factor);
  }
}

}  // namespace

extern const NormKernels norm_kernels__avx2;
extern const NormKernels norm_kernels__avx512;
extern const NormKernels norm_kernels__avx512vnni;

const NormKernels& norm_kernels(Isa isa) {
  if (isa >= Isa::avx512_vnni) return norm_kernels__avx512vnni;
  if (isa >= Isa::avx512) return norm_kernels__avx512;
  return isa >= Isa::avx2 ? norm_kernels__avx2 : kNormKernels;
}

void group_coefficients(const GroupNumbers& g, const Operand& input, const ByteSums* sums, float* a,
                        float* b) {
  const DefaultFloatEnv env;
  group_run(g, input, sums, a, b);
}

void batch_coefficients(const BatchNumbers& numbers, float scale, float* a, float* b) {
  const DefaultFloatEnv env;
  batch_run(numbers, scale, a, b);
}

}  // namespace tae::kernels
