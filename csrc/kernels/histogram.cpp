#include "kernels/histogram.h"

#include <algorithm>
#include <limits>

#include "kernels/histogram-inl.h"
#include "kernels/vec_float_env.h"

namespace tae::kernels {
namespace {

constexpr int64_t kParts = 16;  // of a bin that is widened

// torch.linspace's element i of `steps`: from the nearer end. step: (end - start) / (steps - 1).
float linspace(float start, float end, float step, int64_t steps, int64_t i) {
  return i < steps / 2 ? start + step * static_cast<float>(i)
                       : end - step * static_cast<float>(steps - i - 1);
}

}  // namespace

extern const HistogramKernels histogram_kernels__avx2;

const HistogramKernels& histogram_kernels(Isa isa) {
  return isa >= Isa::avx2 ? histogram_kernels__avx2 : kHistogramKernels;
}

void widen_histogram(const float* histogram, int64_t bins, float from_low, float from_high, float to_low,
                     float to_high, float* out) {
  const DefaultFloatEnv env;
  std::fill(out, out + bins, 0.f);
  const float to_step = (to_high - to_low) / static_cast<float>(bins);
  const float from_step = (from_high - from_low) / static_cast<float>(bins * kParts);
  const float half = 0.5f * from_step;
  int64_t to = 0;
  float next = linspace(to_low, to_high, to_step, bins + 1, 1);
  for (int64_t i = 0; i < bins; ++i) {
    const float part = histogram[i] / static_cast<float>(kParts);
    float middles[kParts];
    for (int64_t j = 0; j < kParts; ++j)
      middles[j] = linspace(from_low, from_high, from_step, bins * kParts + 1, i * kParts + j) + half;
    for (int64_t done = 0; done < kParts;) {
      while (to < bins - 1 && next <= middles[done]) {
        ++to;
        next = linspace(to_low, to_high, to_step, bins + 1, to + 1);
      }
      int64_t below = 0;  // the parts ascend
      for (const float middle : middles) below += middle < next;
      if (to == bins - 1 || below < done) below = kParts;
      out[to] += part * static_cast<float>(below - done);
      done = below;
    }
  }
}

BinRange search_range(const float* histogram, int64_t bins, float low, float high, int64_t levels,
                      float* cumulative, Isa isa) {
  constexpr double kStep = 1e-5;
  const DefaultFloatEnv env;
  const HistogramKernels& kernels = histogram_kernels(isa);
  double sum = 0.;
  for (int64_t i = 0; i < bins; ++i) {
    sum += static_cast<double>(histogram[i]);
    cumulative[i] = static_cast<float>(sum);
  }
  const double total = static_cast<double>(cumulative[bins - 1]);
  BinRange best{0, bins - 1};
  int64_t left = best.first, right = best.last;
  double least = std::numeric_limits<double>::infinity();
  for (double alpha = 0., beta = 1.; alpha < beta;) {
    const float below = static_cast<float>((alpha + kStep) * total);
    const float above = static_cast<float>((beta - kStep) * total);
    left = std::max(left, best.first);
    right = std::min(right, best.last);
    while (left < best.last && cumulative[left] < below) ++left;
    while (right > best.first && cumulative[right] > above) --right;
    BinRange next = best;
    if (left - best.first > best.last - right) {
      next.first = left;
      alpha += kStep;
    } else {
      next.last = right;
      beta -= kStep;
    }
    if (next.first == best.first && next.last == best.last) continue;
    const double error = kernels.error(histogram, bins, low, high, levels, next);
    if (error > least) break;
    least = error;
    best = next;
  }
  return best;
}

}  // namespace tae::kernels
