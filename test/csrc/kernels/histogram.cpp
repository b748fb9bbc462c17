// Counting, widening and the search at every level.
#include "kernels/histogram.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

TEST_CASE("histogram: every value is counted once, in its bin", "[histogram]") {
  for (Isa isa : kernel_levels()) {
    std::mt19937 rng(1);
    for (int64_t n : {0, 1, 255, 256, 257, 1000}) {
      for (int32_t bins : {1, 2, 7, 2048}) {
        Guarded<float> x(n, n % 2 ? Edge::kStart : Edge::kEnd);
        for (float& v : x) v = random_float(rng, -3.f, 3.f);
        if (n > 4) x[0] = -2.f, x[1] = 2.f, x[2] = NAN, x[3] = INFINITY;
        std::vector<uint32_t> counts(static_cast<size_t>(kHistogramCopies * (bins + 1)));
        histogram_kernels(isa).count(x.data(), n, -2.f, 2.f, bins, counts.data());
        std::vector<int64_t> got(static_cast<size_t>(bins)), expected(static_cast<size_t>(bins));
        for (int64_t c = 0; c < kHistogramCopies; ++c)
          for (int32_t b = 0; b < bins; ++b) got[b] += counts[c * (bins + 1) + b];
        for (int64_t i = 0; i < n; ++i) {
          if (!(x[i] >= -2.f && x[i] <= 2.f)) continue;
          const auto bin = static_cast<int32_t>((x[i] + 2.f) * static_cast<float>(bins) / 4.f);
          ++expected[std::min(bin, bins - 1)];
        }
        INFO(name_of(isa) << " n " << n << " bins " << bins);
        REQUIRE(got == expected);
      }
    }
  }
}

TEST_CASE("histogram: widening keeps the total and the place", "[histogram]") {
  std::vector<float> from(64), to(64);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i % 5);
  double total = 0., mean = 0.;
  for (size_t i = 0; i < from.size(); ++i) total += from[i], mean += from[i] * ((i + .5) / 64. * 2. - 1.);
  widen_histogram(from.data(), 64, -1.f, 1.f, -3.f, 1.5f, to.data());
  double new_total = 0., new_mean = 0.;
  for (size_t i = 0; i < to.size(); ++i) new_total += to[i], new_mean += to[i] * ((i + .5) / 64. * 4.5 - 3.);
  CHECK(std::abs(new_total - total) < 1e-3);
  CHECK(std::abs(new_mean / new_total - mean / total) < 0.02);
  CHECK(to[0] == 0.f);   // nothing at -3
  CHECK(to[63] == 0.f);  // nor at 1.5
}

TEST_CASE("histogram: the search leaves outliers out, the same at every level", "[histogram]") {
  std::vector<float> counts(512), work(512);
  for (int i = 200; i < 300; ++i)
    counts[i] = 1e5f * std::exp(-0.002f * static_cast<float>((i - 250) * (i - 250)));
  counts[511] = 1.f;
  const BinRange portable = search_range(counts.data(), 512, -1.f, 1.f, 256, work.data(), Isa::portable);
  CHECK(portable.first > 150);
  CHECK(portable.last < 350);
  CHECK(portable.last > portable.first);
  for (Isa isa : kernel_levels()) {
    const BinRange range = search_range(counts.data(), 512, -1.f, 1.f, 256, work.data(), isa);
    CHECK(range.first == portable.first);
    CHECK(range.last == portable.last);
  }
}
