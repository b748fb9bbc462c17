// How one GEMM is cut into tasks for the threads, and a task into blocks for the
// caches.
#pragma once

#include <cstdint>

#include "kernels/gemm.h"

namespace tae::native {

struct Plan {
  int64_t row_tasks = 1;
  int64_t column_tasks = 1;
  int64_t rows_per_task = 0;
  int64_t tasks() const { return row_tasks * column_tasks; }
};

// The split of m rows by `panels` panels that takes the least time on at most
// `threads` threads. row_unit: rows of the register tile; row_multiple: of those that
// the kernel always computes.
Plan make_plan(int64_t m, int64_t panels, int64_t k_pad, int64_t row_unit, int64_t row_multiple, int threads);

// The GEMM of a task runs over tiles of rows by panels, whose accumulators stay in
// L1 until the epilogue has read them. Tiles are wide and low: the output is then
// written in long runs (twice as fast as 256 bytes of each row at a time).
struct Blocks {
  int64_t rows = 0;  // quantized at a time: they stay in L2
  int64_t tile_rows = 0;
  int64_t tile_panels = 0;
  int64_t quads = 0;    // of the whole k
  int64_t k_quads = 0;  // of one k block
};

// row_bytes: from one quantized row to the next. bytes: the kernel writes the output as bytes.
Blocks choose_blocks(const kernels::GemmKernels& gemm, const kernels::PackedWeight& weight, int64_t task_rows,
                     int64_t row_bytes, bool bytes);

}  // namespace tae::native
