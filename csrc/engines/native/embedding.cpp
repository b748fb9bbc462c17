#include "engines/native/embedding.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "core/parallel.h"
#include "engines/native/embedding_window.h"
#include "kernels/vec_float_env.h"

namespace tae::native {
namespace {

using kernels::EmbeddingKernels;
using kernels::EmbeddingRun;
using kernels::EmbeddingTable;

constexpr int64_t kBagCost = 4;  // indices' worth of writing a bag
constexpr int64_t kNone = INT64_MAX;

// Indices worth a thread: about 4 us of rows from memory.
int64_t index_grain(const EmbeddingTable& t) {
  const int64_t lines = kernels::embedding_row_bytes(t.dim, t.bits) / 64 + 1;
  return std::max<int64_t>(16, 512 / lines);
}

void keep_first(std::atomic<int64_t>& first, int64_t position) {
  int64_t seen = first.load(std::memory_order_relaxed);
  while (position < seen && !first.compare_exchange_weak(seen, position)) {
  }
}

// Bags of several runs: a row of f32 for each run, and what it counted.
struct LongBags {
  std::vector<int64_t> first_slot;  // of each bag; empty when there is no long bag
  std::vector<float> partial;
  std::vector<int64_t> counted;
};

int64_t runs_of(int64_t length) { return std::max<int64_t>(1, (length + kRun - 1) / kRun); }

LongBags long_bags(const BagProblem& p) {
  LongBags result;
  bool any = false;
  for (int64_t b = 0; b < p.bags; ++b) any = any || p.offsets[b + 1] - p.offsets[b] > kRun;
  if (!any) return result;
  result.first_slot.resize(p.bags);
  int64_t slots = 0;
  for (int64_t b = 0; b < p.bags; ++b) {
    result.first_slot[b] = slots;
    const int64_t runs = runs_of(p.offsets[b + 1] - p.offsets[b]);
    if (runs > 1) slots += runs;
  }
  result.partial.resize(static_cast<size_t>(slots) * static_cast<size_t>(p.table.dim));
  result.counted.resize(slots);
  return result;
}

struct Unit {
  int64_t bag;
  int64_t run;
};

class BagWorker {
 public:
  BagWorker(const EmbeddingKernels& k, const BagProblem& p, LongBags& long_bags)
      : k_(k), p_(p), long_bags_(long_bags) {}

  // The units that begin in [begin, end) on the scale of costs. Returns kNone, or a bad
  // position: the first one of this share.
  int64_t run(int64_t begin, int64_t end) {
    const kernels::DefaultFloatEnv env;
    Unit unit = first_unit(begin);
    const Unit stop = first_unit(end);
    IndexWindow window(k_, p_.table, p_.indices, position(stop));
    scratch_.resize(p_.output_dtype == DType::f32 ? 0 : static_cast<size_t>(p_.table.dim));
    while (unit.bag < stop.bag || (unit.bag == stop.bag && unit.run < stop.run)) {
      const int64_t bag_begin = p_.offsets[unit.bag], bag_end = p_.offsets[unit.bag + 1];
      const int64_t runs = runs_of(bag_end - bag_begin);
      const int64_t from = bag_begin + unit.run * kRun;
      const int64_t to = std::min(bag_end, from + kRun);
      if (!window.seek(from, to)) return window.bad();
      if (runs > 1) {
        const int64_t slot = long_bags_.first_slot[unit.bag] + unit.run;
        long_bags_.counted[slot] = one_run(window, from, to, long_bags_.partial.data() + slot * p_.table.dim);
        if (++unit.run == runs) unit = {unit.bag + 1, 0};
      } else if (p_.mode == BagMode::max) {
        max_bag(window, unit.bag, from, to);
        ++unit.bag;
      } else {
        const int64_t next = end_of_whole(unit.bag + 1, stop.bag, window.reach());
        sum_bags(window, unit.bag, next);
        unit.bag = next;
      }
    }
    return kNone;
  }

  void finish_long_bags() {
    const kernels::DefaultFloatEnv env;
    scratch_.resize(static_cast<size_t>(p_.table.dim));
    for (int64_t b = 0; b < p_.bags; ++b) {
      const int64_t runs = runs_of(p_.offsets[b + 1] - p_.offsets[b]);
      if (runs > 1) combine(b, runs);
    }
  }

 private:
  int64_t cost(int64_t bag) const { return p_.offsets[bag] + kBagCost * bag; }
  int64_t position(const Unit& u) const { return p_.offsets[u.bag] + u.run * kRun; }

  // The first unit whose cost, that of all before it, is at least `at`.
  Unit first_unit(int64_t at) const {
    int64_t low = 0, high = p_.bags;  // the last bag with cost <= at, or all of them
    while (low < high) {
      const int64_t middle = low + (high - low + 1) / 2;
      if (cost(middle) <= at) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    if (low == p_.bags) return {p_.bags, 0};
    const int64_t run = (at - cost(low) + kRun - 1) / kRun;
    if (run < runs_of(p_.offsets[low + 1] - p_.offsets[low])) return {low, run};
    return {low + 1, 0};
  }

  // The first bag of [bag, last) that ends behind `reach` or has several runs; else last.
  int64_t end_of_whole(int64_t bag, int64_t last, int64_t reach) const {
    while (bag < last && p_.offsets[bag + 1] <= reach && p_.offsets[bag + 1] - p_.offsets[bag] <= kRun) ++bag;
    return bag;
  }

  EmbeddingRun entries(const IndexWindow& window, int64_t from, int64_t to) const {
    EmbeddingRun run;
    run.offsets = window.at(from);
    run.weights = p_.weights == nullptr ? nullptr : p_.weights + from;
    run.count = to - from;
    run.ahead = window.ahead();
    return run;
  }

  int64_t not_padding(const EmbeddingRun& run) const {
    if (p_.indices.padding < 0) return run.count;
    return run.count - std::count(run.offsets, run.offsets + run.count, kernels::kPaddingRow);
  }

  // A run of a long bag into dst; returns how many of its indices are no padding.
  int64_t one_run(const IndexWindow& window, int64_t from, int64_t to, float* dst) const {
    const EmbeddingRun run = entries(window, from, to);
    if (p_.mode == BagMode::max) {
      k_.max(p_.table, run, dst);
    } else {
      const int64_t begins[] = {from, to};
      k_.sum_f32(p_.table, run, {begins, 1, false}, dst);
    }
    return not_padding(run);
  }

  void sum_bags(const IndexWindow& window, int64_t bag, int64_t next) const {
    const EmbeddingRun run = entries(window, p_.offsets[bag], p_.offsets[next]);
    const kernels::EmbeddingBags bags{p_.offsets + bag, next - bag, p_.mode == BagMode::mean};
    if (p_.output_dtype == DType::f32) {
      k_.sum_f32(p_.table, run, bags, static_cast<float*>(p_.output) + bag * p_.table.dim);
    } else {
      k_.sum_bf16(p_.table, run, bags, static_cast<uint16_t*>(p_.output) + bag * p_.table.dim);
    }
  }

  void max_bag(const IndexWindow& window, int64_t bag, int64_t from, int64_t to) {
    float* const row = f32_row(bag);
    const EmbeddingRun run = entries(window, from, to);
    if (not_padding(run) > 0) {
      k_.max(p_.table, run, row);
    } else {
      std::fill_n(row, p_.table.dim, 0.f);
    }
    write(bag, row);
  }

  void combine(int64_t bag, int64_t runs) {
    const int64_t dim = p_.table.dim;
    float* const row = f32_row(bag);
    const int64_t slot = long_bags_.first_slot[bag];
    const float* part = long_bags_.partial.data() + slot * dim;
    std::copy_n(part, dim, row);
    int64_t counted = long_bags_.counted[slot];
    for (int64_t r = 1; r < runs; ++r) {
      part += dim;
      counted += long_bags_.counted[slot + r];
      if (p_.mode == BagMode::max) {
        for (int64_t d = 0; d < dim; ++d) row[d] = part[d] > row[d] ? part[d] : row[d];
      } else {
        k_.add(part, dim, row);
      }
    }
    if (counted == 0) std::fill_n(row, dim, 0.f);
    if (p_.mode == BagMode::mean && counted > 1) k_.divide(static_cast<float>(counted), dim, row);
    write(bag, row);
  }

  float* f32_row(int64_t bag) {
    if (p_.output_dtype != DType::f32) return scratch_.data();
    return static_cast<float*>(p_.output) + bag * p_.table.dim;
  }

  void write(int64_t bag, const float* row) {
    if (p_.output_dtype == DType::f32) return;
    k_.to_bf16(row, p_.table.dim, static_cast<uint16_t*>(p_.output) + bag * p_.table.dim);
  }

  const EmbeddingKernels& k_;
  const BagProblem& p_;
  LongBags& long_bags_;
  std::vector<float> scratch_;
};

}  // namespace

int64_t run_bags(const EmbeddingKernels& k, const BagProblem& p) {
  LongBags parts = long_bags(p);
  std::atomic<int64_t> first_bad{kNone};
  parallel_for(p.offsets[p.bags] + kBagCost * p.bags, index_grain(p.table), [&](int64_t begin, int64_t end) {
    keep_first(first_bad, BagWorker(k, p, parts).run(begin, end));
  });
  if (first_bad != kNone) return first_bad;
  if (!parts.first_slot.empty()) BagWorker(k, p, parts).finish_long_bags();
  return -1;
}

int64_t run_lookup(const EmbeddingKernels& k, const LookupProblem& p) {
  std::atomic<int64_t> first_bad{kNone};
  parallel_for(p.count, index_grain(p.table), [&](int64_t begin, int64_t end) {
    const kernels::DefaultFloatEnv env;
    IndexWindow window(k, p.table, p.indices, end);
    for (int64_t from = begin; from < end; from += kRun) {
      EmbeddingRun run;
      run.count = std::min(kRun, end - from);
      if (!window.seek(from, from + run.count)) return keep_first(first_bad, window.bad());
      run.offsets = window.at(from);
      run.ahead = window.ahead();
      if (p.output_dtype == DType::f32) {
        k.rows_f32(p.table, run, static_cast<float*>(p.output) + from * p.table.dim);
      } else {
        k.rows_bf16(p.table, run, static_cast<uint16_t*>(p.output) + from * p.table.dim);
      }
    }
  });
  return first_bad == kNone ? -1 : first_bad.load();
}

}  // namespace tae::native
