// Sums and maxima over lists of rows, in passes over as many columns as the registers hold.
// Included by embedding-inl.h.
#pragma once

#include <limits>
#include <type_traits>

#include "kernels/embedding_codes-inl.h"

namespace tae::kernels {
namespace {

// Accumulators of one pass over a list of rows; the rest of the registers are operands.
constexpr int kMaxAccumulators = kLanes == 16 ? 16 : 8;

template <int kBits>
constexpr int kMaxGroups = kMaxAccumulators / kPhases<kBits>;

// Columns of a pass: kGroups vectors of packed bytes from byte `first` on.
struct Columns {
  int64_t first;       // byte
  int64_t last_lanes;  // bytes in the last group
  int64_t code_bytes;
  int64_t elements;  // from the first column to the end of the row
};

// Fetches what a pass reads of a row: its columns and, at the end, scale and bias.
template <int kBits, int kGroups>
TAE_VEC void prefetch_columns(const uint8_t* row, const Columns& c) {
#pragma GCC unroll 8
  for (int byte = 0; byte < kGroups * kLanes; byte += 64) prefetch_line(row + c.first + byte);
  prefetch_line(row + c.code_bytes + embedding_tail_bytes(kBits) - 1);
}

// body(codes, accumulator) for each vector of a row's columns. kWhole: the last group is.
template <int kBits, int kGroups, bool kWhole, typename Body>
TAE_VEC void for_vectors(const uint8_t* row, const Columns& c, VF (&accumulators)[kGroups][kPhases<kBits>],
                         const Body& body) {
  const uint8_t* p = row + c.first;
#pragma GCC unroll 16
  for (int g = 0; g < kGroups; ++g, p += kLanes) {
    VF codes[kPhases<kBits>];
    if (kWhole || g + 1 < kGroups) {
      Codes<kBits>::full(p, codes);
    } else {
      Codes<kBits>::last(p, c.last_lanes, codes);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kPhases<kBits>; ++i) body(codes[i], accumulators[g][i]);
  }
}

// The only pass of a row that fills its vectors.
template <int kBits, int kGroups>
constexpr Columns kWholeRow = {0, kLanes, kGroups* kLanes, int64_t{kGroups} * kLanes* kPhases<kBits>};

// kExact: the pass is that of kWholeRow, whose sizes the compiler then knows.
template <int kBits, int kGroups, bool kWeighted, bool kExact, typename T>
[[gnu::noinline]] void sum_columns(const EmbeddingTable& table, const EmbeddingRun& run,
                                   const EmbeddingBags& bags, const Columns& columns, T* dst) noexcept {
  const Columns c = kExact ? kWholeRow<kBits, kGroups> : columns;
  const int64_t dim = kExact ? c.elements : table.dim;
  const uint8_t* const rows = table.rows;
  const int64_t ahead = run.ahead;
  const int64_t* const begins = bags.begins;
  const int64_t* at = run.offsets;
  for (int64_t b = 0; b < bags.count; ++b, dst += dim) {
    VF total[kGroups][kPhases<kBits>];
#pragma GCC unroll 16
    for (int g = 0; g < kGroups; ++g)
#pragma GCC unroll 4
      for (int p = 0; p < kPhases<kBits>; ++p) total[g][p] = vf(0.f);
    int64_t counted = begins[b + 1] - begins[b];
    const int64_t* const stop = at + counted;
    while (at != stop) {
      const int64_t* const end = stop - at < kBiasRows ? stop : at + kBiasRows;
      float bias = 0.f;
      for (; at != end; ++at) {
        prefetch_columns<kBits, kGroups>(rows + at[ahead], c);
        const int64_t offset = *at;
        if (__builtin_expect(offset < 0, 0)) {
          counted -= offset == kPaddingRow ? 1 : 0;
          continue;
        }
        const uint8_t* row = rows + offset;
        ScaleBias s = load_scale_bias<kBits>(row + c.code_bytes);
        if constexpr (kWeighted) {
          const float weight = run.weights[at - run.offsets];
          s.scale *= weight;
          s.bias *= weight;
        }
        bias += s.bias;
        const VF scale = vf(s.scale);
        for_vectors<kBits, kGroups, kExact>(row, c, total,
                                            [&](VF codes, VF& sum) { sum = fma(scale, codes, sum); });
      }
#pragma GCC unroll 16
      for (int g = 0; g < kGroups; ++g)
#pragma GCC unroll 4
        for (int p = 0; p < kPhases<kBits>; ++p) total[g][p] = add(total[g][p], vf(bias));
    }
    if (bags.mean && counted > 1) {
      const VF divisor = vf(static_cast<float>(counted));
#pragma GCC unroll 16
      for (int g = 0; g < kGroups; ++g)
#pragma GCC unroll 4
        for (int p = 0; p < kPhases<kBits>; ++p) total[g][p] = div(total[g][p], divisor);
    }
    constexpr int64_t kElements = static_cast<int64_t>(kLanes) * kPhases<kBits>;
#pragma GCC unroll 16
    for (int g = 0; g < kGroups; ++g)
      store_elements(dst + g * kElements, total[g], kExact ? kElements : c.elements - g * kElements);
  }
}

template <int kBits, int kGroups>
[[gnu::noinline]] void max_columns(const EmbeddingTable& table, const EmbeddingRun& run, const Columns& c,
                                   float* dst) noexcept {
  VF top[kGroups][kPhases<kBits>];
#pragma GCC unroll 16
  for (int g = 0; g < kGroups; ++g)
#pragma GCC unroll 4
    for (int p = 0; p < kPhases<kBits>; ++p) top[g][p] = vf(-std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < run.count; ++i) {
    prefetch_columns<kBits, kGroups>(table.rows + run.offsets[i + run.ahead], c);
    const int64_t offset = run.offsets[i];
    if (__builtin_expect(offset < 0, 0)) {
      if (offset == kPrunedRow) {
#pragma GCC unroll 16
        for (int g = 0; g < kGroups; ++g)
#pragma GCC unroll 4
          for (int p = 0; p < kPhases<kBits>; ++p) top[g][p] = max(vf(0.f), top[g][p]);
      }
      continue;
    }
    const uint8_t* row = table.rows + offset;
    const ScaleBias s = load_scale_bias<kBits>(row + c.code_bytes);
    const VF scale = vf(s.scale), bias = vf(s.bias);
    for_vectors<kBits, kGroups, false>(
        row, c, top, [&](VF codes, VF& highest) { highest = max(fma(scale, codes, bias), highest); });
  }
#pragma GCC unroll 16
  for (int g = 0; g < kGroups; ++g) {
    const int64_t at = static_cast<int64_t>(g) * kLanes * kPhases<kBits>;
    store_elements(dst + at, top[g], c.elements - at);
  }
}

// Cuts a row into passes of at most kMaxGroups groups: body(columns, dst, kGroups).
template <int kBits, typename T, typename Body>
TAE_VEC void for_columns(const EmbeddingTable& table, T* dst, const Body& body) {
  Columns c;
  c.code_bytes = embedding_code_bytes(table.dim, kBits);
  for (c.first = 0; c.first < c.code_bytes;) {
    const int64_t left = c.code_bytes - c.first;
    const int64_t groups = (left + kLanes - 1) / kLanes;
    c.elements = table.dim - c.first * kPhases<kBits>;
    T* const to = dst + c.first * kPhases<kBits>;
    const auto pass = [&](auto count) {
      constexpr int kGroups = count.value;
      c.last_lanes = left < kGroups * kLanes ? left - (kGroups - 1) * kLanes : kLanes;
      body(c, to, count);
      c.first += kGroups * kLanes;
    };
    constexpr int kMax = kMaxGroups<kBits>;
    if constexpr (kMax >= 16) {
      if (groups >= 16) {
        pass(std::integral_constant<int, 16>{});
        continue;
      }
    }
    if constexpr (kMax >= 8) {
      if (groups >= 8) {
        pass(std::integral_constant<int, 8>{});
        continue;
      }
    }
    if constexpr (kMax >= 4) {
      if (groups >= 4) {
        pass(std::integral_constant<int, 4>{});
        continue;
      }
      if (groups == 3) {
        pass(std::integral_constant<int, 3>{});
        continue;
      }
    }
    if (groups >= 2) {
      pass(std::integral_constant<int, 2>{});
    } else {
      pass(std::integral_constant<int, 1>{});
    }
  }
}

template <int kBits, typename T>
TAE_VEC void sum_passes(const EmbeddingTable& table, const EmbeddingRun& run, const EmbeddingBags& bags,
                        T* dst) {
  for_columns<kBits>(table, dst, [&](const Columns& c, T* to, auto groups) {
    if (run.weights != nullptr) {
      sum_columns<kBits, groups.value, true, false>(table, run, bags, c, to);
    } else if (table.dim == groups.value * kLanes * kPhases<kBits>) {
      sum_columns<kBits, groups.value, false, true>(table, run, bags, c, to);
    } else {
      sum_columns<kBits, groups.value, false, false>(table, run, bags, c, to);
    }
  });
}

// Rows of one pass go through all bags in one call; those of several bag by bag, while the
// bag's rows are in the cache.
template <int kBits, typename T>
TAE_VEC void sum_bits(const EmbeddingTable& table, const EmbeddingRun& run, const EmbeddingBags& bags,
                      T* dst) {
  if (embedding_code_bytes(table.dim, kBits) <= kMaxGroups<kBits> * kLanes) {
    sum_passes<kBits>(table, run, bags, dst);
    return;
  }
  EmbeddingRun one = run;
  for (int64_t b = 0; b < bags.count; ++b, dst += table.dim) {
    const int64_t skip = bags.begins[b] - bags.begins[0];
    one.offsets = run.offsets + skip;
    if (run.weights != nullptr) one.weights = run.weights + skip;
    sum_passes<kBits>(table, one, {bags.begins + b, 1, bags.mean}, dst);
  }
}

template <int kBits>
TAE_VEC void max_bits(const EmbeddingTable& table, const EmbeddingRun& run, float* dst) {
  for_columns<kBits>(table, dst, [&](const Columns& c, float* to, auto groups) {
    max_columns<kBits, groups.value>(table, run, c, to);
  });
}

}  // namespace
}  // namespace tae::kernels
