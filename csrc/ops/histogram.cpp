// What HistogramObserver computes (torch_ao_ext/quantization/observer): private ops,
// because their arguments are the observer's own state. Histograms are float32 [bins].
//   _histogram         counts of input over [low, high] (low < high) in `bins` bins
//   _histogram_widen   the same counts over a wider range
//   _histogram_search  first and last bin of the range that quantizes best, int64 [2]
#include "kernels/histogram.h"

#include <cfloat>
#include <cmath>
#include <mutex>
#include <vector>

#include "core/autograd.h"
#include "core/checks.h"
#include "core/fork.h"
#include "core/parallel.h"

namespace tae {
namespace {

using at::Tensor;

constexpr int64_t kMostBins = int64_t{1} << 20;
constexpr int64_t kCountGrain = int64_t{1} << 16;  // elements that a thread counts at least

// A range whose product with the number of bins is a number: so is every position in it.
void check_range(const char* op, const char* low_name, double low, const char* high_name, double high,
                 int64_t bins) {
  check_finite({op, low_name}, low);  // a high that is not fails below
  TAE_CHECK_VALUE(low <= high, (Arg{op, high_name}), c10::str("be at least ", low_name, " (", low, ")"),
                  high);
  TAE_CHECK_VALUE((high - low) * static_cast<double>(bins) < FLT_MAX, (Arg{op, high_name}),
                  c10::str("give a range that float32 can hold ", bins, " times, above ", low), high);
}

// Counts of a checked histogram; `plain` keeps a copy alive where the layout needed one.
Span<const float> check_histogram(const char* op, const Tensor& histogram, Tensor* plain) {
  const Arg arg{op, "histogram"};
  check_tensor(arg, histogram, {at::kFloat});
  check_rank(arg, histogram, 1);
  const int64_t bins = histogram.size(0);
  TAE_CHECK_VALUE(bins >= 1 && bins <= kMostBins, arg, c10::str("have 1 to ", kMostBins, " bins"), bins);
  *plain = dense(arg, histogram);
  const Span<const float> span = span_of<float>(arg, *plain);
  for (float count : span)
    TAE_CHECK_VALUE(count >= 0.f && count <= FLT_MAX, arg, "hold finite counts of at least 0", count);
  return span;
}

Tensor histogram(const Tensor& input, int64_t bins, double low, double high) {
  const char* op = "_histogram";
  const Arg arg{op, "input"};
  check_tensor(arg, input, {at::kFloat});
  TAE_CHECK_VALUE(bins >= 1 && bins <= kMostBins, (Arg{op, "bins"}), c10::str("be in [1, ", kMostBins, "]"),
                  bins);
  check_range(op, "low", low, "high", high, bins);
  const float lo = static_cast<float>(low), hi = static_cast<float>(high);
  TAE_CHECK_VALUE(lo < hi, (Arg{op, "high"}), c10::str("be above low (", low, ") in float32"), high);
  const bool as_it_lies = input.is_non_overlapping_and_dense() && is_aligned(input);
  const Tensor plain = as_it_lies ? input : dense(arg, input);
  Tensor result = empty_output(arg, {bins}, at::kFloat);
  float* const out = result.mutable_data_ptr<float>();
  std::vector<int64_t> total = make_vector<int64_t>({op, "bins"}, bins);
  if (plain.numel() > 0) {
    check_storage(arg, plain);
    const float* src = static_cast<const float*>(plain.const_data_ptr());
    const int64_t stride = kernels::kHistogramCopies * (bins + 1);
    std::vector<uint32_t> counts = make_vector<uint32_t>({op, "bins"}, num_threads() * stride);
    const auto count = kernels::histogram_kernels(best_isa()).count;
    SerialAfterFork serial;
    std::mutex mutex;
    parallel_for(plain.numel(), kCountGrain, [&](int64_t begin, int64_t end) {
      uint32_t* const own = counts.data() + thread_index() * stride;
      // In parts that the 32 bits of a count can hold.
      for (int64_t i = begin; i < end; i += INT32_MAX) {
        std::fill(own, own + stride, 0);
        count(src + i, std::min<int64_t>(end - i, INT32_MAX), lo, hi, static_cast<int32_t>(bins), own);
        const std::lock_guard<std::mutex> lock(mutex);
        for (int64_t c = 0; c < kernels::kHistogramCopies; ++c)
          for (int64_t b = 0; b < bins; ++b) total[b] += own[c * (bins + 1) + b];
      }
    });
  }
  for (int64_t b = 0; b < bins; ++b) out[b] = static_cast<float>(total[b]);
  return result;
}

Tensor widen(const Tensor& histogram, double low, double high, double new_low, double new_high) {
  const char* op = "_histogram_widen";
  Tensor plain;
  const Span<const float> from = check_histogram(op, histogram, &plain);
  check_range(op, "low", low, "high", high, from.size());
  check_range(op, "new_low", new_low, "new_high", new_high, from.size());
  TAE_CHECK_VALUE(new_low <= low, (Arg{op, "new_low"}), c10::str("be at most low (", low, ")"), new_low);
  TAE_CHECK_VALUE(new_high >= high, (Arg{op, "new_high"}), c10::str("be at least high (", high, ")"),
                  new_high);
  Tensor result = empty_output({op, "histogram"}, {from.size()}, at::kFloat);
  kernels::widen_histogram(from.begin(), from.size(), static_cast<float>(low), static_cast<float>(high),
                           static_cast<float>(new_low), static_cast<float>(new_high),
                           result.mutable_data_ptr<float>());
  return result;
}

Tensor search(const Tensor& histogram, double low, double high, int64_t levels) {
  const char* op = "_histogram_search";
  Tensor plain;
  const Span<const float> counts = check_histogram(op, histogram, &plain);
  check_range(op, "low", low, "high", high, counts.size());
  TAE_CHECK_VALUE(levels >= 2 && levels <= 65536, (Arg{op, "levels"}), "be in [2, 65536]", levels);
  std::vector<float> cumulative = make_vector<float>({op, "histogram"}, counts.size());
  const kernels::BinRange range =
      kernels::search_range(counts.begin(), counts.size(), static_cast<float>(low), static_cast<float>(high),
                            levels, cumulative.data(), best_isa());
  Tensor result = empty_output({op, "histogram"}, {2}, at::kLong);
  result.mutable_data_ptr<int64_t>()[0] = range.first;
  result.mutable_data_ptr<int64_t>()[1] = range.last;
  return result;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def("_histogram(Tensor input, int bins, float low, float high) -> Tensor");
  m.def(
      "_histogram_widen(Tensor histogram, float low, float high, float new_low, float new_high) "
      "-> Tensor");
  m.def("_histogram_search(Tensor histogram, float low, float high, int levels) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("_histogram", TORCH_FN(histogram));
  m.impl("_histogram_widen", TORCH_FN(widen));
  m.impl("_histogram_search", TORCH_FN(search));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("_histogram", TORCH_FN((InferenceOnly<"_histogram", histogram>::call)));
  m.impl("_histogram_widen", TORCH_FN((InferenceOnly<"_histogram_widen", widen>::call)));
  m.impl("_histogram_search", TORCH_FN((InferenceOnly<"_histogram_search", search>::call)));
}

}  // namespace tae
