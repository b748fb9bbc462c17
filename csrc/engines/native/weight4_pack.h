// 4-bit weights in the layout of kernels/weight_only.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "engines/weight_only.h"
#include "kernels/gemm_block.h"
#include "kernels/weight_only.h"

namespace tae::native {

class PackedWeight4 {
 public:
  PackedWeight4() = default;
  // Packs on the thread pool. Throws std::bad_alloc.
  explicit PackedWeight4(const WeightOnlyProblem& p);

  int64_t panels() const { return panels_; }
  int64_t groups() const { return groups_; }
  int64_t k_pad() const { return groups_ * group_; }
  int64_t weight_bytes() const { return group_ / 8 * kernels::kStep4; }
  int64_t block_bytes() const { return weight_bytes() + 4 * kernels::kPanelColumns; }
  int64_t panel_bytes() const { return groups_ * block_bytes(); }
  const uint8_t* panel(int64_t p) const { return data_.get() + p * panel_bytes(); }
  size_t bytes() const { return static_cast<size_t>(panels_ * panel_bytes()); }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  int64_t group_ = 0;
  int64_t groups_ = 0;
  int64_t panels_ = 0;
  std::unique_ptr<uint8_t[], Free> data_;
};

}  // namespace tae::native
