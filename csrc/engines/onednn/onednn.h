// What the oneDNN engine's op families share: the CPU engine under our ISA cap and
// a cache of single-threaded GEMM primitives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "core/result.h"

struct dnnl_memory_desc;
struct dnnl_primitive;

namespace tae::onednn {

// For `info`, e.g. "3.7.2".
std::string onednn_version();

// Empty once oneDNN is usable at our ISA level, else the reason why it is not.
std::string init_error();

// dst[rows][columns] s32 = src[rows][k] u8 * weights[k][columns] s8, on the calling
// thread only. No zero points and no scales: the accumulators are exact.
//   src: row stride `src_stride(k)` bytes; dst: contiguous.
//   weights: BA16a64b4a, the panels of kernels/gemm_block.h.
//   k and columns are multiples of 64.
class Gemm {
 public:
  Gemm(int64_t rows, int64_t k, int64_t columns);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  // Bytes from one row of src to the next: an odd number of cache lines, so that
  // the rows of a register tile fall into different cache sets.
  static int64_t src_stride(int64_t k) { return k | 64; }

  // Empty, or why this primitive must not be used: creation failed, or oneDNN fell
  // back to an implementation that is not a JIT GEMM (1000 times slower).
  const std::string& error() const { return error_; }
  bool out_of_memory() const { return out_of_memory_; }
  const std::string& implementation() const { return implementation_; }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  size_t scratchpad_bytes() const { return scratchpad_bytes_; }

  // Thread-safe. scratchpad: scratchpad_bytes(), 64-byte aligned.
  void run(const uint8_t* src, const int8_t* weights, int32_t* dst, void* scratchpad) const;

 private:
  int64_t rows_, k_, columns_;
  uint64_t id_;  // never used again, unlike addresses
  dnnl_primitive* primitive_ = nullptr;
  dnnl_memory_desc* src_ = nullptr;
  dnnl_memory_desc* weights_ = nullptr;
  dnnl_memory_desc* dst_ = nullptr;
  dnnl_memory_desc* scratchpad_ = nullptr;
  size_t scratchpad_bytes_ = 0;
  std::string implementation_, error_;
  bool out_of_memory_ = false;
};

// Rows for which primitives exist; a call pads its rows to the next. Padding costs
// at most a third, code generation 0.1 to 0.6 ms for each (rows, k, columns).
constexpr int64_t kRowBuckets[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128};
constexpr int kNumRowBuckets = sizeof(kRowBuckets) / sizeof(kRowBuckets[0]);
// Index of the smallest bucket >= rows, 1 <= rows <= 128.
int row_bucket(int64_t rows);

// From a process-wide cache with bounded size, least recently used out first.
// Weights of one shape share primitives. The result may carry an error(); running out
// of memory is none, it throws std::bad_alloc and the next call tries again.
std::shared_ptr<const Gemm> cached_gemm(int64_t rows, int64_t k, int64_t columns);

}  // namespace tae::onednn
