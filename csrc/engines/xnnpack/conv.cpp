// Convolution on XNNPACK's operators: qs8-qc8w, int8 in and out, two spatial dimensions
// (one dimension is a line, depth that nothing crosses is part of the batch). u8 tensors
// are flipped on the way in and out as in linear.cpp; numerics: static_rule.h.
#include "engines/conv.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/fork.h"
#include "core/parallel.h"
#include "core/round_up.h"
#include "engines/input_rows.h"
#include "engines/output_rule.h"
#include "engines/xnnpack/operator_pool.h"
#include "engines/xnnpack/pthreadpool_shim.h"
#include "engines/xnnpack/static_rule.h"
#include "engines/xnnpack/xnnpack.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

using xnnpack::flip_sign_bits;
using xnnpack::OperatorLease;
using xnnpack::OperatorPool;
using xnnpack::PoolHint;
using xnnpack::RealBounds;
using xnnpack::ScopedPoolHint;

constexpr int64_t kSerialWork = 200'000;      // multiply-adds
constexpr int64_t kBytesPerShare = 32 << 10;  // to copy or to flip
constexpr size_t kMaxIdleOperators = 4;       // each has packed the weights for itself
constexpr size_t kWeightOverRead = 64;        // XNNPACK's packing reads that far (XNN_OOB_READS)

class XnnConv final : public ConvImpl {
 public:
  XnnConv(const ConvProblem& p, const RealBounds& bounds);
  // Empty, or why XNNPACK cannot do it. Throws std::bad_alloc.
  std::string pack(const ConvProblem& p);

  void run(const ConvArgs& args) const override;
  const char* engine() const override { return "xnnpack"; }
  std::string description() const override {
    return std::string("xnnpack qs8-qc8w ") + (geometry_.transposed ? "deconvolution" : "convolution");
  }
  // The rows, and what one operator makes of them.
  size_t packed_bytes() const override { return 2 * weight_.size() + 4 * (scale_.size() + bias_.size()); }

 private:
  xnn_status create(xnn_operator_t* op) const;
  xnn_operator_t create_again() const;
  xnn_status reshape(xnn_operator_t op, const ConvArgs& args, int64_t batch, size_t* workspace) const;

  ConvGeometry geometry_;
  int64_t n_, k_;
  bool flips_input_, flips_output_;
  float input_scale_, output_scale_;
  int32_t input_zero_point_, output_zero_point_;  // s8 domain
  RealBounds bounds_;
  std::vector<int8_t> weight_;  // [n][tap][channel], with room behind for over-reads
  std::vector<float> scale_;    // [n]
  std::vector<int32_t> bias_;   // [n]

  mutable OperatorPool pool_{kMaxIdleOperators};
};

XnnConv::XnnConv(const ConvProblem& p, const RealBounds& bounds)
    : geometry_(p.geometry),
      n_(p.rows.n),
      k_(p.rows.k),
      flips_input_(p.rows.input_dtype == DType::qu8),
      flips_output_(p.rows.output_dtype == DType::qu8),
      input_scale_(p.rows.input_scale),
      output_scale_(p.rows.output_scale),
      input_zero_point_(xnnpack::s8_zero_point(p.rows.input_dtype, p.rows.input_zero_point)),
      output_zero_point_(xnnpack::s8_zero_point(p.rows.output_dtype, p.rows.output_zero_point)),
      bounds_(bounds),
      weight_(static_cast<size_t>(n_ * k_) + kWeightOverRead),
      scale_(static_cast<size_t>(n_)) {
  std::copy_n(p.rows.weight, n_ * k_, weight_.data());
  for (int64_t n = 0; n < n_; ++n)
    scale_[static_cast<size_t>(n)] = p.rows.weight_scale[p.rows.weight_scale_size == 1 ? 0 : n];
}

xnn_status XnnConv::create(xnn_operator_t* op) const {
  const DelayFork delay;
  const ConvGeometry& g = geometry_;
  const auto u32 = [](int64_t v) { return static_cast<uint32_t>(v); };
  const auto size = [](int64_t v) { return static_cast<size_t>(v); };
  const auto make =
      g.transposed ? xnn_create_deconvolution2d_nhwc_qs8_qc8w : xnn_create_convolution2d_nhwc_qs8_qc8w;
  *op = nullptr;
  const xnn_status status =
      make(u32(g.padding[1]), u32(g.padding[2]), u32(g.padding[1]), u32(g.padding[2]), u32(g.kernel[1]),
           u32(g.kernel[2]), u32(g.stride[1]), u32(g.stride[2]), u32(g.dilation[1]), u32(g.dilation[2]),
           u32(g.groups), size(g.group_channels()), size(n_ / g.groups), size(g.in_channels), size(n_),
           static_cast<int8_t>(input_zero_point_), input_scale_, scale_.data(), weight_.data(), bias_.data(),
           static_cast<int8_t>(output_zero_point_), output_scale_,
           xnnpack::quantized_bound(bounds_.low, output_scale_, output_zero_point_),
           xnnpack::quantized_bound(bounds_.high, output_scale_, output_zero_point_), /*flags=*/0,
           /*code_cache=*/nullptr, /*weights_cache=*/nullptr, op);
  // Without memory for the padding XNNPACK makes no operator and reports success.
  return status == xnn_status_success && *op == nullptr ? xnn_status_out_of_memory : status;
}

std::string XnnConv::pack(const ConvProblem& p) {
  Result<std::vector<int32_t>> bias = xnnpack::fold_bias(p.rows);
  if (!bias) return bias.reason();
  bias_ = std::move(bias.value());
  xnn_operator_t op;
  const xnn_status status = create(&op);
  if (status == xnn_status_out_of_memory) throw std::bad_alloc();
  if (status != xnn_status_success)
    return std::string("creating the operator failed: ") + xnnpack::status_name(status);
  pool_.give(op);
  return {};
}

xnn_operator_t XnnConv::create_again() const {
  const kernels::DefaultFloatEnv env;  // multipliers as at packing
  xnn_operator_t op;
  xnnpack::check_created(create(&op));
  return op;
}

xnn_status XnnConv::reshape(xnn_operator_t op, const ConvArgs& args, int64_t batch, size_t* workspace) const {
  const auto size = [](int64_t v) { return static_cast<size_t>(v); };
  const size_t b = size(batch), h = size(args.input_size[1]), w = size(args.input_size[2]);
  *workspace = 0;
  if (!geometry_.transposed) {
    size_t alignment = 1;
    return xnn_reshape_convolution2d_nhwc_qs8_qc8w(op, b, h, w, workspace, &alignment, nullptr, nullptr,
                                                   nullptr);
  }
  // What the output has beyond the reach of the last input position.
  uint32_t beyond[3] = {};
  for (int axis = 1; axis < 3; ++axis)
    beyond[axis] = static_cast<uint32_t>(args.output_size[axis] -
                                         ((args.input_size[axis] - 1) * geometry_.stride[axis] -
                                          2 * geometry_.padding[axis] +
                                          (geometry_.kernel[axis] - 1) * geometry_.dilation[axis] + 1));
  return xnn_reshape_deconvolution2d_nhwc_qs8_qc8w(op, b, h, w, beyond[1], beyond[2], nullptr, nullptr,
                                                   nullptr);
}

void XnnConv::run(const ConvArgs& args) const {
  const int64_t batch = args.batch * args.input_size[0];
  const bool serial = args.m * k_ * n_ < kSerialWork || num_threads() == 1;
  const auto share = [&](int64_t count, const auto& body) {
    parallel_for(count, serial ? count : kBytesPerShare, body);
  };
  PoolHint hint;
  hint.serial = serial;
  hint.default_float_env = true;
  const ScopedPoolHint scope(hint);
  OperatorLease lease(pool_, [this] { return create_again(); });
  size_t workspace_bytes = 0;
  xnn_status status;
  {
    const kernels::DefaultFloatEnv env;
    status = reshape(lease.op(), args, batch, &workspace_bytes);
  }
  if (status != xnn_status_success) lease.discard();
  const int64_t input_bytes = round_up(args.input_bytes + XNN_EXTRA_BYTES, 64);
  const ScratchMemory memory(static_cast<size_t>(input_bytes) + workspace_bytes);
  const auto* const source = static_cast<const uint8_t*>(args.input);
  share(args.input_bytes, [&](int64_t begin, int64_t end) {
    if (flips_input_)
      flip_sign_bits(source + begin, memory.data() + begin, end - begin);
    else
      std::memcpy(memory.data() + begin, source + begin, static_cast<size_t>(end - begin));
  });
  const auto* const input = reinterpret_cast<const int8_t*>(memory.data());
  auto* const output = static_cast<int8_t*>(args.output);
  const kernels::DefaultFloatEnv env;
  if (status == xnn_status_success)
    status = geometry_.transposed ? xnn_setup_deconvolution2d_nhwc_qs8_qc8w(lease.op(), input, output)
                                  : xnn_setup_convolution2d_nhwc_qs8_qc8w(
                                        lease.op(), memory.data() + input_bytes, input, output);
  if (status == xnn_status_success) status = xnn_run_operator(lease.op(), nullptr);
  xnnpack::check_ran(status);
  if (!flips_output_) return;
  auto* const bytes = static_cast<uint8_t*>(args.output);
  share(args.m * n_,
        [&](int64_t begin, int64_t end) { flip_sign_bits(bytes + begin, bytes + begin, end - begin); });
}

[[gnu::noinline]] Result<ConvImplPtr> make_checked(const ConvProblem& p) {
  if (std::string error = xnnpack::init_error(); !error.empty()) return refuse(error);
  const LinearProblem& rows = p.rows;
  const ConvGeometry& g = p.geometry;
  if (g.kernel[0] != 1 || g.stride[0] != 1 || g.padding[0] != 0 || g.dilation[0] != 1)
    return refuse("three spatial dimensions; needs at most 2");
  if (rows.dynamic || !is_quantized(rows.input_dtype))
    return refuse("input dtype ", name_of(rows.input_dtype));
  if (!is_quantized(rows.output_dtype)) return refuse("output dtype ", name_of(rows.output_dtype));
  if (has_weight_zero_point(rows)) return refuse("asymmetric weights");
  if (rows.k > kMaxExactK)
    return refuse("taps times channels ", rows.k, "; int32 is exact up to ", kMaxExactK);
  for (int axis = 1; axis < 3; ++axis) {
    // Its output may go on for less than the dilation; XNNPACK's for less than the stride.
    if (g.transposed && g.dilation[axis] > g.stride[axis])
      return refuse("transposed, dilation ", g.dilation[axis], "; needs at most the stride ", g.stride[axis]);
  }
  if (!std::isnormal(rows.input_scale) || rows.input_scale < 0.f)
    return refuse("input scale ", rows.input_scale, "; needs a positive normal float");
  Result<RealBounds> bounds = xnnpack::fuse_post_ops(rows.post_ops);
  if (!bounds) return refuse(bounds.reason());
  auto impl = std::make_shared<XnnConv>(p, bounds.value());
  if (std::string error = impl->pack(p); !error.empty()) return refuse(error);
  return ConvImplPtr(std::move(impl));
}

}  // namespace

Result<ConvImplPtr> make_conv_xnnpack(const ConvProblem& p) {
  const kernels::DefaultFloatEnv env;  // XNNPACK computes multipliers at creation
  return make_checked(p);
}

}  // namespace tae
