// The primitives that one weight uses, cut into chunks of columns: those for blocks of some heights, kept so
// that the common lookup needs neither the lock nor the map of the process-wide cache.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "core/fork.h"
#include "engines/onednn/onednn.h"
#include "kernels/gemm_block.h"

namespace tae::onednn {

// For one height of a block of rows: of full chunks and of the last chunk.
struct ChunkGemms {
  std::shared_ptr<const Gemm> full, last;
};

// Panels are those of kernels/gemm_block.h, a chunk is chunk_panels of them.
class ChunkGemmCache {
 public:
  ChunkGemmCache(int64_t k_pad, int64_t panels) : k_pad_(k_pad), panels_(panels) {}

  // Makes those for blocks of `rows` rows. The reason why they cannot be used, or empty.
  std::string prepare(int64_t rows, int64_t chunk_panels);
  // Of what prepare() has made.
  const std::string& implementation() const { return implementation_; }

  // For at least `rows` rows, at most what prepare() was given; none for 0 rows.
  ChunkGemms get(int64_t rows, int64_t chunk_panels) const {
    if (rows == 0) return {};
    const int64_t full = chunk_panels * kernels::kPanelColumns, last = last_columns(chunk_panels);
    const int bucket = row_bucket(rows);
    {
      // The cut depends on the number of rows and of threads: the last one is kept.
      std::lock_guard<std::mutex> lock(mutex_);
      const ChunkGemms& known = used_[bucket];
      if (known.full != nullptr && known.full->columns() == full && known.last->columns() == last)
        return known;
    }
    return make(rows, full, last);
  }

 private:
  int64_t last_columns(int64_t chunk_panels) const {
    return ((panels_ - 1) % chunk_panels + 1) * kernels::kPanelColumns;
  }
  ChunkGemms make(int64_t rows, int64_t full_columns, int64_t last_columns) const;
  std::shared_ptr<const Gemm> usable_gemm(int64_t rows, int64_t columns) const;

  int64_t k_pad_, panels_;
  std::string implementation_;
  std::mutex& mutex_ = fork_safe_mutex(this);
  mutable std::array<ChunkGemms, kNumRowBuckets> used_;  // by bucket
};

}  // namespace tae::onednn
