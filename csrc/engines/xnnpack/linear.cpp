// Linear on XNNPACK's fully-connected operators.
//
// Quantized output: qs8-qc8w, int8 in and out. A u8 tensor is the s8 tensor with
// the top bit flipped and a zero point 128 lower, so it is flipped on the way in
// and out: XNNPACK's own qu8 kernels know no VNNI and are 4 times slower.
// Numerics: static_rule.h.
//
// Float output, dynamic or static: qd8-f32-qc8w. The integers are ours
// (input_rows.h) and exact; f32(acc) * s_x * s_w[n] + bias[n] is rounded after the
// first product and at the end (FMA where the CPU has it).
#include "engines/linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "core/round_up.h"
#include "engines/input_rows.h"
#include "engines/xnnpack/fully_connected.h"
#include "engines/xnnpack/pthreadpool_shim.h"
#include "engines/xnnpack/static_rule.h"
#include "engines/xnnpack/xnnpack.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

using xnnpack::flip_sign_bits;
using xnnpack::PoolHint;
using xnnpack::RealBounds;
using xnnpack::ScopedPoolHint;

// Multiply-adds below which sharing costs more than it saves (a fork and join
// takes about 3 us).
constexpr int64_t kSerialWork = 200'000;
constexpr int64_t kElementsPerShare = 32768;
// Packed weights that stay in the second-level cache while all rows pass by.
constexpr int64_t kSlabBytes = 256 << 10;
constexpr int64_t kMaxSlabRows = 512;
// Above it f32(acc) * s_x may overflow although the result is finite: 2^31 * 2^96.
constexpr float kLargeRowScale = 0x1p96f;
constexpr float kLargeRowFactor = 0x1p32f;

uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded);
}

class XnnLinear final : public LinearImpl {
 public:
  XnnLinear(const LinearProblem& p, const RealBounds& bounds);
  // Empty, or why XNNPACK cannot do it.
  std::string pack(const LinearProblem& p) { return layer_.pack(p); }

  void run(const LinearArgs& args) const override;
  const char* engine() const override { return "xnnpack"; }
  std::string description() const override {
    return std::string("xnnpack ") + (quantized_ ? "qs8-qc8w " : "qd8-f32-qc8w ") + shape_.kernel;
  }
  size_t packed_bytes() const override { return layer_.bytes(); }

 private:
  struct Scratch;

  int64_t row_block(int64_t m, int threads) const;
  size_t tiling_threads(int64_t rows, int threads) const;
  void share_rows(const InputRows::Call& call, int threads) const;
  void share_columns(const InputRows::Call& call, int threads) const;
  void load_rows(const InputRows::Call& call, int64_t m0, int64_t begin, int64_t end, Scratch& s) const;
  void compute(const LinearArgs& args, int64_t m0, int64_t rows, const Scratch& s) const;
  [[gnu::noinline]] void finish_rows(const LinearArgs& args, int64_t m0, int64_t begin, int64_t end,
                                     const Scratch& s) const;
  void finish_large_row(const Scratch& s, int64_t row, float* result) const;

  int64_t k_, n_;
  int64_t stride_;  // bytes between rows of the s8 input
  bool quantized_;  // output
  DType input_dtype_, output_dtype_;
  float input_scale_;
  int32_t input_zero_point_;  // s8 domain
  RealBounds bounds_;
  xnnpack::GemmShape shape_;
  InputRows rows_;
  xnnpack::FullyConnected layer_;
};

// Room for XNN_EXTRA_BYTES after each row, and an odd number of cache lines, so that
// the rows of a tile do not compete for the same cache sets.
int64_t input_stride(int64_t k) { return round_up(k + XNN_EXTRA_BYTES, 64) | 64; }

XnnLinear::XnnLinear(const LinearProblem& p, const RealBounds& bounds)
    : k_(p.k),
      n_(p.n),
      stride_(input_stride(p.k)),
      quantized_(is_quantized(p.output_dtype)),
      input_dtype_(p.input_dtype),
      output_dtype_(p.output_dtype),
      input_scale_(p.input_scale),
      input_zero_point_(xnnpack::s8_zero_point(p.input_dtype, p.input_zero_point)),
      bounds_(bounds),
      shape_(quantized_ ? xnnpack::qs8_gemm_shape() : xnnpack::qd8_gemm_shape()),
      rows_(p),
      layer_(p, bounds, stride_) {}

// Working memory for `rows` rows, one block: s8 input, row parameters (with room for
// the ones that XNNPACK reads behind them), and f32 results where the output is not f32.
struct XnnLinear::Scratch {
  Scratch(const XnnLinear& owner, int64_t rows) : memory(layout(owner, rows)) {
    input = reinterpret_cast<int8_t*>(memory.data());
    params = reinterpret_cast<xnn_quantization_params*>(memory.data() + rows * owner.stride_);
    result = reinterpret_cast<float*>(memory.data() + rows * owner.stride_ + params_bytes(rows));
  }
  static int64_t params_bytes(int64_t rows) {
    const auto bytes = static_cast<int64_t>(sizeof(xnn_quantization_params));
    return round_up((rows + XNN_EXTRA_QUANTIZATION_PARAMS) * bytes, 64);
  }
  static size_t layout(const XnnLinear& owner, int64_t rows) {
    const int64_t result_bytes = owner.output_dtype_ == DType::bf16 ? rows * owner.n_ * 4 : 0;
    return static_cast<size_t>(rows * owner.stride_ + params_bytes(rows) + result_bytes);
  }

  ScratchMemory memory;
  int8_t* input;
  xnn_quantization_params* params;
  float* result;
};

void XnnLinear::run(const LinearArgs& args) const {
  if (args.m < 1) return;
  const int threads = args.m * n_ * k_ < kSerialWork ? 1 : num_threads();
  const InputRows::Call call = rows_.begin(args);
  // Whichever of rows and weights is larger is cut, so that each thread reads its
  // part of it and all of the smaller one.
  if (threads == 1 || (args.m >= n_ && args.m >= shape_.rows * threads))
    share_rows(call, threads);
  else
    share_columns(call, threads);
}

// Rows per share: whole tiles, about 64 rows, an equal number of shares a thread.
int64_t XnnLinear::row_block(int64_t m, int threads) const {
  const int64_t tiles = ceil_div(m, shape_.rows);
  const int64_t most = std::max<int64_t>(1, 64 / shape_.rows);
  const int64_t rounds = ceil_div(tiles, threads * most);
  return ceil_div(tiles, threads * rounds) * shape_.rows;
}

// The thread count to report so that XNNPACK's tiles have the columns wanted: it
// takes n * row_tiles / (5 * count) and rounds to whole panels.
size_t XnnLinear::tiling_threads(int64_t rows, int threads) const {
  const int64_t row_tiles = rows == 1 ? 1 : ceil_div(rows, shape_.rows);
  int64_t columns = std::max<int64_t>(16, kSlabBytes / k_);
  if (threads > 1) columns = std::min(columns, ceil_div(n_ * row_tiles, 4 * threads));
  return static_cast<size_t>(ceil_div(n_ * row_tiles, 5 * columns));
}

void XnnLinear::share_rows(const InputRows::Call& call, int threads) const {
  const int64_t m = call.args->m, block = row_block(m, threads);
  const int64_t blocks = ceil_div(m, block);
  const auto share = [&](int64_t begin, int64_t end) {
    Scratch s(*this, std::min(block, m));
    const kernels::DefaultFloatEnv env;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t m0 = b * block, rows = std::min(block, m - m0);
      load_rows(call, m0, 0, rows, s);
      PoolHint hint{/*serial=*/true, tiling_threads(rows, 1), /*default_float_env=*/true};
      ScopedPoolHint scope(hint);
      compute(*call.args, m0, rows, s);
      finish_rows(*call.args, m0, 0, rows, s);
    }
  };
  if (threads == 1)
    share(0, blocks);
  else
    parallel_for(blocks, 1, share);
}

void XnnLinear::share_columns(const InputRows::Call& call, int threads) const {
  const int64_t m = call.args->m, slab = std::min(m, kMaxSlabRows);
  Scratch s(*this, slab);
  for (int64_t m0 = 0; m0 < m; m0 += slab) {
    const int64_t rows = std::min(slab, m - m0);
    parallel_for(rows, std::max<int64_t>(1, kElementsPerShare / k_),
                 [&](int64_t begin, int64_t end) { load_rows(call, m0, begin, end, s); });
    {
      PoolHint hint{/*serial=*/false, tiling_threads(rows, threads), /*default_float_env=*/true};
      ScopedPoolHint scope(hint);
      compute(*call.args, m0, rows, s);
    }
    parallel_for(rows, std::max<int64_t>(1, 2 * kElementsPerShare / n_), [&](int64_t begin, int64_t end) {
      const kernels::DefaultFloatEnv env;
      finish_rows(*call.args, m0, begin, end, s);
    });
  }
}

// Fills rows [begin, end) of the scratch with s8 values and parameters.
void XnnLinear::load_rows(const InputRows::Call& call, int64_t m0, int64_t begin, int64_t end,
                          Scratch& s) const {
  const LinearArgs& args = *call.args;
  for (int64_t i = begin; i < end; ++i) {
    int8_t* dst = s.input + i * stride_;
    auto* bytes = reinterpret_cast<uint8_t*>(dst);
    const auto* src = static_cast<const uint8_t*>(args.input) + (m0 + i) * args.input_stride;
    if (input_dtype_ == DType::qs8) {
      std::memcpy(dst, src, static_cast<size_t>(k_));
    } else if (input_dtype_ == DType::qu8) {
      flip_sign_bits(src, bytes, k_);
    } else {
      kernels::RowParams row;
      rows_.quantize(call, m0 + i, 1, bytes, stride_, &row);
      flip_sign_bits(bytes, bytes, k_);
      s.params[i] = {row.zero_point - 128, row.scale};
      continue;
    }
    std::memset(dst + k_, 0, static_cast<size_t>(stride_ - k_));
    s.params[i] = {input_zero_point_, input_scale_};
  }
}

void XnnLinear::compute(const LinearArgs& args, int64_t m0, int64_t rows, const Scratch& s) const {
  void* output = output_dtype_ == DType::bf16 ? static_cast<void*>(s.result)
                 : quantized_ ? static_cast<void*>(static_cast<int8_t*>(args.output) + m0 * n_)
                              : static_cast<void*>(static_cast<float*>(args.output) + m0 * n_);
  layer_.run(rows, s.input, output, s.params);
}

// From XNNPACK's results to the output type, for rows [begin, end) of the scratch.
void XnnLinear::finish_rows(const LinearArgs& args, int64_t m0, int64_t begin, int64_t end,
                            const Scratch& s) const {
  if (quantized_) {
    auto* out = static_cast<uint8_t*>(args.output) + (m0 + begin) * n_;
    if (output_dtype_ == DType::qu8) flip_sign_bits(out, out, (end - begin) * n_);
    return;
  }
  for (int64_t i = begin; i < end; ++i) {
    float* result =
        output_dtype_ == DType::bf16 ? s.result + i * n_ : static_cast<float*>(args.output) + (m0 + i) * n_;
    // XNNPACK's min and max may have turned a NaN into a bound.
    if (std::isnan(s.params[i].scale))
      std::fill(result, result + n_, std::numeric_limits<float>::quiet_NaN());
    else if (s.params[i].scale > kLargeRowScale)
      finish_large_row(s, i, result);
    if (output_dtype_ != DType::bf16) continue;
    auto* out = static_cast<uint16_t*>(args.output) + (m0 + i) * n_;
    for (int64_t n = 0; n < n_; ++n) out[n] = to_bf16(result[n]);
  }
}

// A row with values near the end of the float range: computed again with a scale
// 2^-32 as large, without bounds. A second run with scale 0 gives the bias, the
// only other term.
void XnnLinear::finish_large_row(const Scratch& s, int64_t row, float* result) const {
  PoolHint hint{/*serial=*/true, 1, /*default_float_env=*/true};
  ScopedPoolHint scope(hint);
  std::vector<float> bias(static_cast<size_t>(n_));
  const int8_t* input = s.input + row * stride_;
  const xnn_quantization_params& params = s.params[row];
  layer_.run_unbounded(input, bias.data(), {});
  layer_.run_unbounded(input, result, {params.zero_point, params.scale / kLargeRowFactor});
  for (int64_t n = 0; n < n_; ++n) {
    const float r = (result[n] - bias[n]) * kLargeRowFactor + bias[n];
    result[n] = std::min(std::max(r, bounds_.low), bounds_.high);
  }
}

[[gnu::noinline]] Result<LinearImplPtr> make_checked(const LinearProblem& p) {
  if (std::string error = xnnpack::init_error(); !error.empty()) return refuse(error);
  if (p.k < 1 || p.n < 1) return refuse("empty weight [", p.n, ", ", p.k, "]");
  if (p.k > kMaxExactK) return refuse("k ", p.k, "; int32 is exact up to ", kMaxExactK);
  for (int64_t i = 0; p.weight_zero_point != nullptr && i < p.weight_scale_size; ++i)
    if (p.weight_zero_point[i] != 0) return refuse("asymmetric weights");
  for (int64_t i = 0; i < p.weight_scale_size; ++i)
    if (!std::isnormal(p.weight_scale[i]) || p.weight_scale[i] < 0.f)
      return refuse("weight scale ", p.weight_scale[i], "; needs a positive normal float");
  const bool float_input = p.input_dtype == DType::f32 || p.input_dtype == DType::bf16;
  if (p.input_dtype == DType::s32 || p.dynamic != float_input)
    return refuse("input dtype ", name_of(p.input_dtype));
  if (p.output_dtype == DType::s32 || (p.dynamic && is_quantized(p.output_dtype)))
    return refuse("output dtype ", name_of(p.output_dtype));
  Result<RealBounds> bounds = xnnpack::fuse_post_ops(p.post_ops);
  if (!bounds) return refuse(bounds.reason());
  if (!p.dynamic) {
    if (!std::isnormal(p.input_scale) || p.input_scale < 0.f)
      return refuse("input scale ", p.input_scale, "; needs a positive normal float");
    if (p.input_zero_point < quant_min(p.input_dtype) || p.input_zero_point > quant_max(p.input_dtype))
      return refuse("input zero point ", p.input_zero_point, " outside the input type");
  }
  auto impl = std::make_shared<XnnLinear>(p, bounds.value());
  if (std::string error = impl->pack(p); !error.empty()) return refuse(error);
  return LinearImplPtr(std::move(impl));
}

}  // namespace

Result<LinearImplPtr> make_linear_xnnpack(const LinearProblem& p) {
  const kernels::DefaultFloatEnv env;  // XNNPACK computes multipliers at creation
  return make_checked(p);
}

}  // namespace tae
