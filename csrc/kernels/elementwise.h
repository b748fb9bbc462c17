// Elementwise arithmetic on 8-bit values: dequantize, compute in f32, quantize again, in
// one pass. Single-threaded and torch-free; the ops split work over threads.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "core/dtype.h"
#include "core/post_ops.h"

namespace tae::kernels {

// count contiguous 8-bit values of one scale; f32 or bf16 ones (scale 1, zero point 0)
// where a kernel says so.
struct Operand {
  const void* data = nullptr;
  DType dtype = DType::qu8;  // qu8 or qs8
  float scale = 1.f;
  int32_t zero_point = 0;
};

// What is done to a real value r before it is stored: post-ops (without operands), then
// clamp(round_half_even(r * inverse_scale) + zero_point) for an 8-bit dtype.
struct Finish {
  const PostOp* post_ops = nullptr;
  int num_post_ops = 0;
  DType dtype = DType::qu8;  // qu8, qs8, f32 or bf16
  float inverse_scale = 1.f;
  int32_t zero_point = 0;
  bool streams = false;  // more results than caches hold: whole aligned vectors of bytes go past them
};

// Whether the post-ops are none or relu: on bytes, a maximum with the zero point.
inline bool folds(const Finish& f) {
  return f.num_post_ops == 0 || (f.num_post_ops == 1 && f.post_ops[0].kind == PostOp::Kind::relu);
}

// Positions first, first + step ... of a window along a line of an image; `padded` counts
// those in the padding as well.
struct PoolWindow {
  int64_t first = 0, count = 1, padded = 1;
};

// x = f32(q - zero_point) * scale, r = x, a + b or a * b: each step one f32 operation, so
// that results do not depend on the ISA. No pointer needs alignment.
struct ElementwiseKernels {
  void (*requantize)(const Finish& finish, const Operand& a, int64_t count, void* dst);  // or floats
  void (*add)(const Finish& finish, const Operand& a, const Operand& b, int64_t count, void* dst);
  void (*multiply)(const Finish& finish, const Operand& a, const Operand& b, int64_t count, void* dst);
  // dst[i] = min(max(src[i], lo), hi) in the order of the 8-bit dtype.
  void (*clamp)(const void* src, DType dtype, int32_t lo, int32_t hi, int64_t count, void* dst);

  // dst[c] = max over the rows; rows holds `count` >= 1 pointers to `channels` values.
  void (*max_rows)(const void* const* rows, int64_t count, int64_t channels, DType dtype, void* dst);
  // The largest values of each of `outputs` windows of a line [*][channels] that begins at position
  // `origin`; a window of nothing gives the lowest integer.
  void (*max_windows)(const void* line, int64_t origin, const PoolWindow* windows, int64_t step,
                      int64_t outputs, int64_t channels, DType dtype, void* dst);
  // Both at once for small windows: the largest values over `count` >= 1 lines that begin at position 0.
  void (*max_areas)(const void* const* lines, int64_t count, const PoolWindow* windows, int64_t step,
                    int64_t outputs, int64_t channels, DType dtype, void* dst);
  // r = f32(sum over the rows of (q - zero_point)) * scale / divisor; at most 2^23 rows. For each of
  // `outputs` rows of dst `count` pointers, one after the other.
  void (*average_rows)(const Finish& finish, const Operand& row, const void* const* rows, int64_t count,
                       int64_t outputs, int64_t channels, float divisor, void* dst);
  // r = ((a * y0x0 + b * y0x1) + (c * y1x0 + d * y1x1)) * scale, a ... d = f32(q - zero_point) of the
  // rows in order, y0x0 = down[0] * along[0] and so on.
  void (*blend_rows)(const Finish& finish, const Operand& row, const void* const* rows, const float* down,
                     const float* along, int64_t channels, void* dst);
};

// The table of the best level <= isa that has one (portable, avx2, avx512).
const ElementwiseKernels& elementwise_kernels(Isa isa);

}  // namespace tae::kernels
