// The linear family as engines see it: y = post_ops(s_x * s_w * acc + bias).
//
//   acc[m][n] = sum_k (x[m][k] - zp_x[m]) * (w[n][k] - zp_w[n])     exact, int32
//   r[m][n]   = f32(acc) * (s_x[m] * s_w[n]) + bias[n]              f32, no FMA
//   r         = post_ops(r)
//   float output:      y = r (bf16: rounded to nearest even)
//   quantized output:  y = clamp(round_half_even(r / s_out) + zp_out), NaN -> quant_min
//
// Dynamic: x is float; its rows (or the whole tensor) are quantized first, see
// DynamicQuant. Torch-free. Every pointer outlives the call it is passed to.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/dtype.h"
#include "core/post_ops.h"
#include "core/result.h"

namespace tae {

// How a float input becomes integers. Row rule (all f32), over quant range
// [lo, hi] = [0, 255] affine, [-127, 127] symmetric:
//   affine:    mn = min(row, 0), mx = max(row, 0); s = (mx - mn) / (hi - lo);
//              s == 0, or below the smallest normal float: s = 1 when mx == mn, else FLT_MIN
//              zp = clamp(round_half_even(-mn / s), lo, hi)
//   symmetric: s = max|row| / 127, same floor; zp = 0
//   q = clamp(round_half_even(x * (1 / s)) + zp, lo, hi)
// Tensor rule: ATen's ChooseQuantizationParams (double arithmetic, zero point
// from the end with the smaller error), so that torch.ao's results are matched.
// reduce_range: hi - lo is halved (affine [0, 127], symmetric [-63, 63]).
// A row (or tensor) with a NaN or infinity gives NaN in every output it reaches.
struct DynamicQuant {
  bool per_row = true;
  bool symmetric = false;
  bool reduce_range = false;

  friend bool operator==(const DynamicQuant& a, const DynamicQuant& b) {
    return a.per_row == b.per_row && a.symmetric == b.symmetric && a.reduce_range == b.reduce_range;
  }
};

// The blocks of a sparse weight, row of blocks by row of blocks (BSR). Checked: offsets
// rise from 0 to blocks, columns rise strictly inside a row, elements past n or k are 0.
struct BlockSparse {
  int64_t block_rows = 1;  // 1x4 or 8x1
  int64_t block_columns = 4;
  int64_t blocks = 0;
  const int8_t* values = nullptr;    // [blocks][block_rows][block_columns]
  const int32_t* offsets = nullptr;  // [ceil(n / block_rows) + 1]
  const int32_t* columns = nullptr;  // [blocks], in units of block_columns
};

// Everything known when the weight is packed. M is not: an engine that accepts
// a problem accepts every M.
struct LinearProblem {
  int64_t k = 0;
  int64_t n = 0;
  const int8_t* weight = nullptr;  // [n][k], contiguous
  // [weight_scale_size], 1 or n; finite, normal, > 0; any finite value with a folded batch norm
  const float* weight_scale = nullptr;
  int64_t weight_scale_size = 1;
  const int32_t* weight_zero_point = nullptr;  // same length as scale; null when all are 0
  const float* bias = nullptr;                 // [n], finite; or null
  const BlockSparse* sparse = nullptr;         // the blocks of `weight`, whose rest is 0

  bool dynamic = false;
  DynamicQuant dynamic_quant;

  DType input_dtype = DType::qu8;   // static: qu8, qs8; dynamic: f32, bf16
  DType output_dtype = DType::qu8;  // static: any; dynamic: f32, bf16
  float input_scale = 1.f;          // static only
  int32_t input_zero_point = 0;
  bool qparams_in_call = false;  // static, qu8: both come with each call instead
  float output_scale = 1.f;      // quantized output only
  int32_t output_zero_point = 0;
  PostOps post_ops;
  const float* slope = nullptr;          // of prelu, [n], finite; or null
  const float* affine_weight = nullptr;  // of affine, [n], finite; or null, as the next
  const float* affine_bias = nullptr;

  bool has_add() const {
    for (const PostOp& p : post_ops)
      if (p.kind == PostOp::Kind::add) return true;
    return false;
  }
};

// Largest k whose accumulator cannot leave int32: 255 * 128 a term, or 255 * 255
// with weight zero points.
constexpr int64_t kMaxExactK = 65793;
constexpr int64_t kMaxExactKAsymmetricWeight = 33025;

// One call. The tensors that were baked or referenced at packing are passed
// again so that an engine need not own copies of scales and bias.
struct LinearArgs {
  int64_t m = 0;
  const void* input = nullptr;     // [m][k], row stride below, elements contiguous
  int64_t input_stride = 0;        // in elements, >= k
  void* output = nullptr;          // [m][n], contiguous
  const void* other = nullptr;     // [m][n], contiguous; operand of `add`
  DType other_dtype = DType::f32;  // f32, bf16, qu8, qs8
  float other_scale = 1.f;
  int32_t other_zero_point = 0;
  float input_scale = 1.f;  // with qparams_in_call, as the zero point; NaN gives NaN
  int32_t input_zero_point = 0;
};

class LinearImpl {
 public:
  virtual ~LinearImpl() = default;
  // Thread-safe: one object serves concurrent calls. Throws std::bad_alloc or
  // std::runtime_error (engine failure) only.
  virtual void run(const LinearArgs& args) const = 0;
  virtual const char* engine() const = 0;       // "native", "onednn", ...
  virtual std::string description() const = 0;  // kernel and ISA, for explain and the log
  virtual size_t packed_bytes() const = 0;      // memory held besides the plain weight
};
using LinearImplPtr = std::shared_ptr<const LinearImpl>;

// Each engine's door. An engine copies from the problem what it needs: the
// problem's pointers (weight, scales, bias) are dead after make returns.
Result<LinearImplPtr> make_linear_native(const LinearProblem& p);
Result<LinearImplPtr> make_linear_onednn(const LinearProblem& p);
Result<LinearImplPtr> make_linear_xnnpack(const LinearProblem& p);
Result<LinearImplPtr> make_linear_reference(const LinearProblem& p);

// Own kernels on the blocks alone; refuses where the dense ones are faster. p.sparse is
// given.
Result<LinearImplPtr> make_sparse_linear_native(const LinearProblem& p);

}  // namespace tae
