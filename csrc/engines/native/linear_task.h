// linear on our own kernels: what a problem packs (linear.cpp) and the work of a task (linear_task.cpp).
//
// One parallel region a call: a task owns a range of rows and a range of weight
// panels. It brings a block of its rows into the u8 domain (L2-resident), runs
// the GEMM kernel on tiles of rows by panels, and the epilogue turns each int32
// tile, still in L1, into output. Tasks that share rows quantize them each for
// itself: cheaper than a barrier.
#pragma once

#include <string>

#include "engines/input_rows.h"
#include "engines/native/byte_output.h"
#include "engines/native/plan.h"
#include "engines/output_rule.h"
#include "kernels/epilogue.h"
#include "kernels/gemm.h"

namespace tae::native {

using kernels::EpilogueParams;
using kernels::GemmBlock;
using kernels::GemmKernels;
using kernels::RowParams;

struct Span {
  const int8_t* data = nullptr;
  int64_t bytes = 0;
};

// Rows in the u8 domain as the kernel reads them.
struct QuantizedRows {
  const uint8_t* data = nullptr;
  int64_t stride = 0;
  const RowParams* params = nullptr;
  int64_t step = 1;  // 0: all rows share params[0]
};

// Panels a GEMV computes between two calls of the epilogue: 8 KB of accumulators.
constexpr int64_t kGemvPanels = 32;

class NativeLinear final : public LinearImpl {
 public:
  NativeLinear(const LinearProblem& p, Isa isa);

  void run(const LinearArgs& args) const override;
  const char* engine() const override { return "native"; }
  std::string description() const override;
  size_t packed_bytes() const override;

 private:
  struct Call {
    const LinearArgs& args;
    const GemmKernels& gemm;
    InputRows::Call rows;
    EpilogueParams epilogue;
    Blocks blocks;
    bool in_place = false;  // the kernel reads the input where it lies
    bool floats = false;    // the kernel writes the output, not the epilogue
    bool bytes = false;     // the same
  };
  // One thread's working memory.
  struct Scratch {
    // [tile_rows][64 * tile_panels], or the row of a GEMV; that alone where blocks leave no sums,
    // whose GemmBlock::c is not used.
    int32_t* tile = nullptr;
    RowParams* params = nullptr;  // [blocks.rows]
    uint8_t* rows = nullptr;      // [blocks.rows][row_bytes]
  };

  const GemmKernels& kernels_for(int64_t m) const;
  bool read_in_place(const GemmKernels& gemm, const LinearArgs& args) const;
  bool finishes_in_kernel(const GemmKernels& gemm) const;
  void run_task(const Call& call, const Scratch& scratch, int64_t r0, int64_t r1, int64_t p0,
                int64_t p1) const;
  Span input_span(const Call& call, int64_t begin, int64_t end) const;
  QuantizedRows place_rows(const Call& call, const Scratch& scratch, int64_t r0) const;
  void quantize_rows(const Call& call, const Scratch& scratch, int64_t r0, int64_t begin, int64_t end) const;
  void multiply_row(const Call& call, const Scratch& scratch, int64_t row, int64_t p0, int64_t p1) const;
  void multiply_rows(const Call& call, const Scratch& scratch, int64_t r0, int64_t rows, int64_t p0,
                     int64_t p1) const;
  void multiply_panel(const Call& call, GemmBlock& g, const QuantizedRows& rows, int64_t a_row, int64_t row,
                      int64_t panel, int64_t most_fetched) const;
  void finish(const Call& call, const QuantizedRows& a, int64_t a_row, int64_t row, int64_t rows, int64_t p0,
              int64_t p1, const int32_t* raw, int64_t raw_stride) const;

  // Bytes from one quantized row to the next: an odd number of cache lines, so
  // that the rows of a register tile fall into different L1 sets.
  int64_t row_bytes() const { return weight_.k_pad() | kernels::kKMultiple; }

  Isa isa_;
  InputRows input_;
  kernels::PackedWeight weight_;
  DType input_dtype_;
  OutputRule output_;
  ByteOutput bytes_;
  const GemmKernels& gemm_;
  const GemmKernels& gemm_few_rows_;
  const kernels::EpilogueFn epilogue_;
};

}  // namespace tae::native
