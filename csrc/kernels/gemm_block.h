// What a GEMM kernel sees: plain structs only, because every ISA file includes
// this header.
//
// Packed weights, one layout for every ISA: panels of 64 output columns,
//   [ceil(n / 64)][k_pad / 4][64][4] int8,
// so that one load of 64 bytes holds 16 columns by 4 consecutive k. k is padded
// to a multiple of 64 and n to a multiple of 64, both with zeros; every panel
// begins on a cache line.
#pragma once

#include <cstdint>

#include "kernels/byte_rule.h"
#include "kernels/row_params.h"

namespace tae::kernels {

constexpr int64_t kPanelColumns = 64;
constexpr int64_t kKMultiple = 64;
// Bytes that one step of 4 k takes in a panel.
constexpr int64_t kQuadBytes = kPanelColumns * 4;

// What turns accumulators into float output while they are still in registers:
//   out[r][j] = f32(c[r][j] - zero_point[r] * column_sum[j]) * (scale[r] * weight_scale[j]) + bias[j]
// The plainest case of epilogue.h, with the same bits. Saves a pass over int32 tiles and
// spreads the stores of the output over the multiply-adds of the next tile.
struct FloatFinish {
  const RowParams* row = nullptr;       // of the block's first row
  int64_t row_step = 1;                 // 0: all rows share row[0]
  const int32_t* column_sum = nullptr;  // [64] of this panel, padding included
  const float* weight_scale = nullptr;  // [cols], or [1] with weight_scale_stride 0
  int64_t weight_scale_stride = 1;
  const float* bias = nullptr;  // [cols] or null
  float* out = nullptr;         // element (first row, first column)
  int64_t out_stride = 0;       // elements
  int64_t cols = kPanelColumns;
};

// An 8-bit tensor that is added: f32(data[r][j] - zero_point) * scale.
struct ByteAddend {
  const uint8_t* data = nullptr;  // element (first row, first column); null: nothing is added
  int64_t stride = 0;
  int32_t zero_point = 0;
  float scale = 1.f;
  bool is_signed = false;
};

// The same for a quantized output, where byte_rule.h applies to
//   f32(c[r][j] + start[j]) * scale[j] + bias[j], plus the addend
struct ByteFinish {
  const int32_t* start = nullptr;  // [64] of this panel, padding included, as the next two
  const float* scale = nullptr;
  const float* bias = nullptr;
  ByteRule rule;
  ByteAddend addend;
  uint8_t* out = nullptr;  // element (first row, first column)
  int64_t out_stride = 0;
  int64_t cols = kPanelColumns;
};

// c[r][j] (+)= sum over lines * 4 * quads values of k of a[r][k] * b[k][j], for one
// panel and a range of k. The values of `a` behind the real k meet zero weights.
struct GemmBlock {
  const uint8_t* a = nullptr;  // [rows][4 * quads], elements contiguous
  int64_t a_stride = 0;        // bytes
  const int8_t* b = nullptr;   // inside a panel, at the first k of the range
  int64_t quads = 0;           // multiple of GemmKernels::quad_multiple
  // So many ranges of k one after the other, of `quads` each: those of `b` lie together,
  // those of `a` line_stride bytes apart. More than 1 only if GemmKernels::takes_lines.
  int64_t lines = 1;
  int64_t line_stride = 0;
  int32_t* c = nullptr;              // [rows][64]; see GemmKernels::row_multiple
  int64_t c_stride = kPanelColumns;  // elements
  int64_t rows = 0;
  int64_t columns = kPanelColumns;  // that count: the kernel may leave out those behind
  bool accumulate = false;          // c += instead of c =
  // Not null: the sums go through it and not to c. Only if GemmKernels::finishes.
  const FloatFinish* finish = nullptr;
  const ByteFinish* finish_bytes = nullptr;
  // Memory fetched meanwhile, so that nobody waits for it later: where the epilogue
  // will write (out_bytes of each row; 0: nothing), weights of a later block, and input
  // that is still to be quantized (only if GemmKernels::fetches_input).
  const uint8_t* out = nullptr;
  int64_t out_stride = 0;  // bytes
  int64_t out_bytes = 0;
  const int8_t* next = nullptr;
  int64_t next_bytes = 0;
  const int8_t* input = nullptr;
  int64_t input_bytes = 0;
};

// Fetches the cache line at p for writing. As instruction because the intrinsic
// needs a compiler flag; a no-op before Broadwell.
static inline __attribute__((always_inline)) void fetch_for_write(const uint8_t* p) {
  __asm__ volatile("prefetchw %0" : : "m"(*p));
}

static inline __attribute__((always_inline)) void fetch_to_l2(const void* p) { __builtin_prefetch(p, 0, 2); }

// One row of `a` times consecutive panels: c[64 * panels].
struct GemvRange {
  const uint8_t* a = nullptr;
  const int8_t* b = nullptr;
  int64_t panel_bytes = 0;  // from one panel to the next
  int64_t quads = 0;
  int64_t panels = 0;
  int32_t* c = nullptr;
};

struct GemmKernels {
  const char* name = "";  // of the register tile, for description()
  // The kernel may touch rows of `a` and `c` up to the next multiple of it.
  int64_t row_multiple = 1;
  int64_t quad_multiple = 1;
  int64_t row_unit = 1;  // rows of the register tile
  // Blocking that suits the kernel: rows of one tile (multiple of row_unit and
  // row_multiple), bytes of accumulators of one tile, and k values whose part of
  // a panel stays in L1 (multiple of 4 * quad_multiple).
  int64_t row_block = 0;
  int64_t tile_bytes = 24 << 10;
  int64_t k_block = 0;
  bool finishes = false;       // `block` takes GemmBlock::finish and finish_bytes
  bool fetches_input = false;  // and GemmBlock::input
  bool takes_lines = false;    // and GemmBlock::lines
  void (*block)(const GemmBlock& g) = nullptr;
  void (*gemv)(const GemvRange& g) = nullptr;
  // Called by each thread around its calls of `block`; may be null.
  void (*begin)() = nullptr;
  void (*end)() = nullptr;
};

}  // namespace tae::kernels
