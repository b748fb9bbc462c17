// How one GEMM is cut into tasks for the threads, and the rows of a task into
// blocks for the caches.
#pragma once

#include <cstdint>

#include "kernels/gemm_block.h"

namespace tae::native {

struct Plan {
  int64_t row_tasks = 1;
  int64_t column_tasks = 1;
  int64_t rows_per_task = 0;
  int64_t tasks() const { return row_tasks * column_tasks; }
};

// The split of m rows by `panels` panels that takes the least time on at most
// `threads` threads. row_unit: rows of the register tile. The cost terms, per
// value of k, are cycles on an AVX512-VNNI core; only their ratio matters:
// 64 columns of a row 0.5, quantizing a row 0.4, drawing a panel into L2 4.
Plan make_plan(int64_t m, int64_t panels, int64_t k_pad, int64_t row_unit, int threads);

}  // namespace tae::native
