// What a product of two activations needs around the GEMM kernels: panels packed in the
// call, and the way from accumulators to the output. Single-threaded and torch-free.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "core/dtype.h"
#include "core/post_ops.h"

namespace tae::kernels {

// Columns of an 8-bit matrix [k][n] as one panel of gemm_block.h.
struct PanelSource {
  const uint8_t* data = nullptr;  // element (0, first column)
  int64_t k = 0;
  int64_t columns = 0;        // at most kPanelColumns; the rest of the panel is 0
  int64_t row_stride = 0;     // from one k to the next, in elements
  int64_t column_stride = 0;  // one of the two strides is 1
  bool is_unsigned = false;   // u8: packed minus 128
};

// Packs `quads` quads of k, zeros from k on. panel: 64-byte aligned, kQuadBytes * quads.
void pack_panel(const PanelSource& source, int64_t quads, int8_t* panel, Isa isa);

// From accumulators of u8 rows and s8 columns to the output:
//   r = post_ops(f32(raw[r][c] - column_term[c] - row_term[r]) * scale), then stored
struct MatmulFinish {
  float scale = 1.f;
  const PostOp* post_ops = nullptr;
  int num_post_ops = 0;
  DType dtype = DType::f32;
  float output_scale = 1.f;
  int32_t output_zero_point = 0;
};

struct MatmulTile {
  const int32_t* raw = nullptr;
  int64_t raw_stride = 0;  // elements
  int64_t rows = 0;
  int64_t cols = 0;
  const int32_t* column_term = nullptr;  // [cols]
  const int32_t* row_term = nullptr;     // [rows]
  void* output = nullptr;                // element (first row, first column)
  int64_t output_stride = 0;             // elements
};

using MatmulFinishFn = void (*)(const MatmulFinish& f, const MatmulTile& t);

// The best level <= isa that has one (portable, avx2, avx512).
MatmulFinishFn matmul_finish(Isa isa);

}  // namespace tae::kernels
