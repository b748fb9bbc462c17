// Histograms of a calibration: counting, widening, and the search for the range with
// the least squared quantization error. Arithmetic in float32, in the order of the
// published algorithm (torch.ao's HistogramObserver), so that the same qparams follow.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"

namespace tae::kernels {

// Copies of the counts that `count_bins` fills in turn, so that equal neighbours do not
// wait for each other.
constexpr int64_t kHistogramCopies = 4;

struct BinRange {
  int64_t first = 0;
  int64_t last = 0;  // inclusive
};

struct HistogramKernels {
  // counts[copy][bin] += 1 for each value of src in [low, high], low < high:
  //   bin = min(int((x - low) * bins / (high - low)), bins - 1)
  // NaN and values outside go to bin `bins`. counts: [kHistogramCopies][bins + 1].
  void (*count)(const float* src, int64_t count, float low, float high, int32_t bins, uint32_t* counts);
  // Squared error of quantizing the whole histogram to `levels` levels over the bins of
  // `range`: values are spread evenly over a bin, each level over its surroundings.
  double (*error)(const float* histogram, int64_t bins, float low, float high, int64_t levels,
                  BinRange range);
};
const HistogramKernels& histogram_kernels(Isa isa);

// A histogram over [from_low, from_high] as one over [to_low, to_high], which contains it:
// each bin in 16 parts, a part to where its middle falls. out: [bins].
void widen_histogram(const float* histogram, int64_t bins, float from_low, float from_high, float to_low,
                     float to_high, float* out);

// Narrows [0, bins) from its ends by quantiles of 1e-5 as long as the squared error of
// quantizing the values to `levels` levels between the ends falls.
// cumulative: working memory, [bins].
BinRange search_range(const float* histogram, int64_t bins, float low, float high, int64_t levels,
                      float* cumulative, Isa isa);

}  // namespace tae::kernels
