// The indices of a lookup or of bags, checked some at a time, and the rows to fetch ahead of them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/embedding.h"

namespace tae::native {

constexpr int64_t kMostAhead = 64;
constexpr int64_t kIndexBlock = 1024;  // indices resolved at a time, at least kRun + kMostAhead

// How many rows ahead to fetch. From memory, about 100 lines under way were fastest (rows
// of 1 to 3 lines: 8 rows ahead 17-22 ns a row, 16 10-13, 32-64 5-9); from the cache,
// fewer cost less.
inline int64_t rows_ahead(const kernels::EmbeddingTable& t) {
  const int64_t lines = kernels::embedding_row_bytes(t.dim, t.bits) / 64 + 1;
  return std::clamp<int64_t>(80 / lines, 4, kMostAhead);
}

// Offsets of a sliding window of indices, so that kernels never see an unchecked one.
class IndexWindow {
 public:
  // limit: the position after the last one this thread will ask for.
  IndexWindow(const kernels::EmbeddingKernels& k, const kernels::EmbeddingTable& table,
              const kernels::EmbeddingIndices& indices, int64_t limit)
      : k_(k), table_(table), indices_(indices), limit_(limit), ahead_(rows_ahead(table)) {}

  // Offsets of [begin, end), at most kRun, and of `ahead()` more behind them. False when
  // an index among them is bad: `bad()` tells which.
  bool seek(int64_t begin, int64_t end) {
    if (begin >= low_ && std::min(end + ahead_, limit_) <= high_) return true;
    const bool cold = high_ == 0;
    low_ = begin;
    high_ = std::min(begin + kIndexBlock, limit_);
    bad_ = k_.resolve(table_, indices_, low_, high_ - low_, offsets_);
    if (bad_ >= 0) return false;
    std::fill_n(offsets_ + (high_ - low_), kMostAhead, 0);
    if (cold) k_.prefetch(table_, offsets_, std::min(ahead_, high_ - low_));
    return true;
  }
  // The position up to which seek() would find everything here.
  int64_t reach() const { return high_ == limit_ ? limit_ : high_ - ahead_; }
  const int64_t* at(int64_t position) const { return offsets_ + (position - low_); }
  int64_t ahead() const { return ahead_; }
  int64_t bad() const { return bad_; }

 private:
  const kernels::EmbeddingKernels& k_;
  const kernels::EmbeddingTable& table_;
  const kernels::EmbeddingIndices& indices_;
  const int64_t limit_;
  const int64_t ahead_;
  int64_t low_ = 0;
  int64_t high_ = 0;
  int64_t bad_ = -1;
  int64_t offsets_[kIndexBlock + kMostAhead];
};

}  // namespace tae::native
