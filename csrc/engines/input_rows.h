// The input side of a linear call, shared by the engines that feed a third-party
// GEMM: rows of any accepted dtype become u8 rows with their parameters, by the
// rules of linear.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "engines/linear.h"
#include "kernels/choose_qparams.h"
#include "kernels/rows.h"

namespace tae {

// 64-byte aligned working memory of the calling thread, kept between calls so
// that the steady state allocates nothing. Uninitialized. Leases nest.
class ScratchMemory {
 public:
  explicit ScratchMemory(size_t bytes);  // throws std::bad_alloc
  ~ScratchMemory();
  ScratchMemory(const ScratchMemory&) = delete;
  ScratchMemory& operator=(const ScratchMemory&) = delete;

  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_ = nullptr;
  int slot_ = -1;
};

class InputRows {
 public:
  explicit InputRows(const LinearProblem& p);

  // What all rows of one call share.
  struct Call {
    const LinearArgs* args = nullptr;
    kernels::QParams tensor;  // tensor rule only
  };
  // Tensor rule: reads the whole input for its range, on the thread pool.
  Call begin(const LinearArgs& args) const;

  // Quantizes, copies or shifts rows [m, m + count), row i into dst + i * dst_stride with
  // zeros from k on. The row of a NaN or infinity is all zero, with a NaN scale.
  void quantize(const Call& call, int64_t m, int64_t count, uint8_t* dst, int64_t dst_stride,
                kernels::RowParams* params) const;

  bool dynamic() const { return dynamic_; }
  // Static: what quantize() returns for every row, except the sum.
  kernels::RowParams static_params(const LinearArgs& args) const;

 private:
  [[gnu::noinline]] kernels::QParams tensor_params(const LinearArgs& args) const;
  kernels::RowParams copy_row(const LinearArgs& args, int64_t m, uint8_t* dst, int64_t dst_stride) const;
  kernels::RowParams quantize_row(const LinearArgs& args, kernels::QParams q, int64_t m, uint8_t* dst,
                                  int64_t dst_stride) const;
  void min_max(const LinearArgs& args, int64_t m, float* mn, float* mx) const;

  const kernels::RowKernels* kernels_;
  int64_t k_;
  bool dynamic_;
  bool full_;  // dynamic, values of the whole u8 range, and nobody needs their sum
  DynamicQuant rule_;
  DType dtype_;
  bool qparams_in_call_;  // static, and not the next two
  float scale_;           // static
  int32_t zero_point_;    // static, u8 domain
};

}  // namespace tae
