// Loops of histogram.h without branches, so that the compiler uses the vectors of the file
// that includes them: histogram.cpp and histogram__avx2.cpp.
#pragma once

#include "kernels/histogram.h"
#include "kernels/vec_float_env.h"

namespace tae::kernels {
namespace {

constexpr int64_t kBlock = 256;

// Bins of kBlock values; no branches, so that the compiler uses vectors.
void find_bins(const float* x, float low, float high, int32_t bins, int32_t* index) {
  const float width = high - low;
  const float count = static_cast<float>(bins);
  for (int64_t i = 0; i < kBlock; ++i) {
    const bool inside = (x[i] >= low) & (x[i] <= high);
    const float at = (inside ? x[i] - low : 0.f) * count / width;
    const int32_t bin = static_cast<int32_t>(at);
    index[i] = inside ? (bin < bins - 1 ? bin : bins - 1) : bins;
  }
}

void count_bins(const float* src, int64_t count, float low, float high, int32_t bins, uint32_t* counts) {
  const DefaultFloatEnv env;
  int32_t index[kBlock];
  float end[kBlock];
  const int64_t stride = bins + 1;
  for (int64_t i = 0; i < count; i += kBlock) {
    const int64_t n = count - i < kBlock ? count - i : kBlock;
    const float* x = src + i;
    if (n < kBlock) {
      for (int64_t j = 0; j < kBlock; ++j) end[j] = j < n ? x[j] : __builtin_nanf("");
      x = end;
    }
    find_bins(x, low, high, bins, index);
    for (int64_t j = 0; j < kBlock; j += kHistogramCopies)
      for (int64_t c = 0; c < kHistogramCopies; ++c) ++counts[c * stride + index[j + c]];
  }
}

// Integral of x^2 from begin to end, times 3.
inline float cubes(float begin, float end) { return end * end * end - begin * begin * begin; }

// floor(x / width) in [0, levels). The quotient in double: exact enough for its floor.
inline float level_of(float x, double width, double last) {
  double level = static_cast<double>(x) / width;
  level = level > 0. ? level : 0.;
  level = level < last ? level : last;
  return static_cast<float>(static_cast<int32_t>(level));
}

double quantization_error(const float* histogram, int64_t bins, float low, float high, int64_t levels,
                          BinRange range) {
  const double exact_bin = (static_cast<double>(high) - static_cast<double>(low)) / static_cast<double>(bins);
  const double exact_level =
      exact_bin * static_cast<double>(range.last - range.first + 1) / static_cast<double>(levels);
  if (exact_level == 0.) return 0.;
  const float bin = static_cast<float>(exact_bin);
  const double width = static_cast<double>(static_cast<float>(exact_level));
  const float level = static_cast<float>(exact_level);
  const float half = static_cast<float>(exact_level / 2);
  const double last = static_cast<double>(levels - 1);
  const float whole = cubes(-half, half) / 3.f;
  float norms[kBlock];
  double sum = 0.;
  for (int64_t b = 0; b < bins; b += kBlock) {
    const int32_t first = static_cast<int32_t>(b - range.first);
    float counts[kBlock];
    for (int64_t i = 0; i < kBlock; ++i) counts[i] = b + i < bins ? histogram[b + i] : 0.f;
    for (int32_t i = 0; i < kBlock; ++i) {
      const float begin = static_cast<float>(first + i) * bin;
      const float end = begin + bin;
      const float from = level_of(begin, width, last);
      const float to = level_of(end, width, last);
      const float density = counts[i] / bin;
      // Up to the end of the first level, the levels between, from the begin of the last.
      float norm = density * (cubes(begin - (from + 0.5f) * level, half) / 3.f);
      norm += (to - from - 1.f) * (density * whole);
      norm += density * (cubes(-half, end - (to * level + half)) / 3.f);
      norms[i] = norm;
    }
    for (float norm : norms) sum += static_cast<double>(norm);
  }
  return sum;
}

constexpr HistogramKernels kHistogramKernels = {count_bins, quantization_error};

}  // namespace
}  // namespace tae::kernels
