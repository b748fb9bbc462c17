// int8 GEMM: one kernel table per ISA, and the packed weights they share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/cpu_features.h"
#include "kernels/gemm_block.h"

namespace tae::kernels {

// The table of exactly this level; the caller has checked cpu_has(isa).
const GemmKernels& gemm_kernels(Isa isa);

// 64-byte aligned memory for packed weights, uninitialized; std::free it. Throws
// std::bad_alloc.
void* allocate_packed(int64_t bytes);

// Weights in the layout of gemm_block.h, with the sum of each column.
class PackedWeight {
 public:
  PackedWeight() = default;
  // weight: [n][k] int8, contiguous; k, n >= 0. Packs on the thread pool; needs
  // no memory besides the result. Throws std::bad_alloc. With flip 0x80 the bytes are
  // u8 with 128 added, in the padding too.
  PackedWeight(const int8_t* weight, int64_t n, int64_t k, uint8_t flip = 0);

  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  int64_t k_pad() const { return k_pad_; }
  int64_t panels() const { return panels_; }
  int64_t panel_bytes() const { return k_pad_ * kPanelColumns; }
  const int8_t* panel(int64_t p) const { return data_.get() + p * panel_bytes(); }
  // [64 * panels], 0 in the padding.
  const int32_t* column_sum() const { return column_sum_.get(); }
  size_t bytes() const;

 private:
  struct Free {
    void operator()(void* p) const;
  };
  int64_t n_ = 0;
  int64_t k_ = 0;
  int64_t k_pad_ = 0;
  int64_t panels_ = 0;
  std::unique_ptr<int8_t[], Free> data_;
  std::unique_ptr<int32_t[], Free> column_sum_;
};

}  // namespace tae::kernels
