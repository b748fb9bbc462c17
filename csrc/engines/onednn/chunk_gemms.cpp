#include "engines/onednn/chunk_gemms.h"

#include <stdexcept>
#include <utility>

namespace tae::onednn {

std::string ChunkGemmCache::prepare(int64_t rows, int64_t chunk_panels) {
  for (const int64_t columns : {chunk_panels * kernels::kPanelColumns, last_columns(chunk_panels)}) {
    const auto gemm = cached_gemm(rows, k_pad_, columns);
    if (!gemm->error().empty()) return gemm->error();
    implementation_ = gemm->implementation();
  }
  get(rows, chunk_panels);
  return {};
}

// prepare() has seen that its height works; should a smaller bucket not have a JIT implementation, the next
// one does its work.
std::shared_ptr<const Gemm> ChunkGemmCache::usable_gemm(int64_t rows, int64_t columns) const {
  for (int i = row_bucket(rows); i < kNumRowBuckets; ++i) {
    auto gemm = cached_gemm(kRowBuckets[i], k_pad_, columns);
    if (gemm->error().empty()) return gemm;
  }
  throw std::runtime_error("torch_ao_ext: oneDNN: no JIT implementation for " + std::to_string(rows) +
                           " rows");
}

ChunkGemms ChunkGemmCache::make(int64_t rows, int64_t full_columns, int64_t last_columns) const {
  const ChunkGemms made{usable_gemm(rows, full_columns), usable_gemm(rows, last_columns)};
  ChunkGemms replaced = made;  // destroyed after the lock
  std::lock_guard<std::mutex> lock(mutex_);
  std::swap(used_[row_bucket(rows)], replaced);
  return made;
}

}  // namespace tae::onednn
