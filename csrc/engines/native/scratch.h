// Working memory of a call: each thread keeps its blocks between calls, so that
// the steady state allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tae::native {

// Holds one of the calling thread's blocks, 64-byte aligned and uninitialized,
// until destroyed. Leases nest: an inner one gets another block. Throws
// std::bad_alloc.
class ScratchLease {
 public:
  explicit ScratchLease(int64_t bytes);
  ~ScratchLease();
  ScratchLease(const ScratchLease&) = delete;
  ScratchLease& operator=(const ScratchLease&) = delete;

  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_ = nullptr;
  int slot_ = -1;  // -1: a block of its own, freed with the lease
};

}  // namespace tae::native
