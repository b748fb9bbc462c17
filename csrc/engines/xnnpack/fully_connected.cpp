#include "engines/xnnpack/fully_connected.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "core/fork.h"
#include "kernels/vec_float_env.h"

namespace tae::xnnpack {
namespace {

// XNNPACK's packing reads up to this far past the weights (XNN_OOB_READS). The
// values do not matter; an unmapped page would.
constexpr size_t kWeightOverRead = 64;
bool may_cross_page(const void* end) {
  return reinterpret_cast<uintptr_t>(end) % 4096 + kWeightOverRead > 4096 ||
         reinterpret_cast<uintptr_t>(end) % 4096 == 0;
}

}  // namespace

FullyConnected::FullyConnected(const LinearProblem& p, const RealBounds& bounds, int64_t input_stride)
    : k_(p.k),
      n_(p.n),
      stride_(input_stride),
      quantized_(is_quantized(p.output_dtype)),
      input_scale_(p.input_scale),
      output_scale_(p.output_scale),
      input_zero_point_(s8_zero_point(p.input_dtype, p.input_zero_point)),
      output_zero_point_(s8_zero_point(p.output_dtype, p.output_zero_point)),
      bounds_(bounds),
      weight_scale_(static_cast<size_t>(p.n)) {
  for (int64_t n = 0; n < n_; ++n) weight_scale_[n] = p.weight_scale[p.weight_scale_size == 1 ? 0 : n];
}

xnn_status FullyConnected::create(const int8_t* kernel, const float* bias_f32, const int32_t* bias_s32,
                                  const RealBounds& bounds, xnn_operator_t* op) const {
  const DelayFork delay;
  const auto k = static_cast<size_t>(k_), n = static_cast<size_t>(n_), stride = static_cast<size_t>(stride_);
  *op = nullptr;
  if (!quantized_)
    return xnn_create_fully_connected_nc_qd8_f32_qc8w(
        k, n, stride, n, weight_scale_.data(), kernel, bias_f32, bounds.low, bounds.high,
        /*flags=*/0, /*code_cache=*/nullptr, weights_.cache(), op);
  return xnn_create_fully_connected_nc_qs8_qc8w(
      k, n, stride, n, static_cast<int8_t>(input_zero_point_), input_scale_, weight_scale_.data(), kernel,
      bias_s32, static_cast<int8_t>(output_zero_point_), output_scale_,
      quantized_bound(bounds.low, output_scale_, output_zero_point_),
      quantized_bound(bounds.high, output_scale_, output_zero_point_), /*flags=*/0, /*code_cache=*/nullptr,
      weights_.cache(), op);
}

std::string FullyConnected::pack(const LinearProblem& p) {
  std::vector<int32_t> folded;
  if (quantized_) {
    Result<std::vector<int32_t>> bias = fold_bias(p);
    if (!bias) return bias.reason();
    folded = std::move(bias.value());
  }
  const size_t bytes = static_cast<size_t>(k_ * n_);
  const int8_t* kernel = p.weight;
  std::vector<int8_t> copy;
  if (may_cross_page(kernel + bytes)) {
    copy.resize(bytes + kWeightOverRead);
    std::memcpy(copy.data(), kernel, bytes);
    kernel = copy.data();
  }
  xnn_operator_t op;
  const xnn_status status = create(kernel, p.bias, p.bias == nullptr ? nullptr : folded.data(), bounds_, &op);
  // Not an answer about this weight: the next call tries again.
  if (status == xnn_status_out_of_memory) throw std::bad_alloc();
  if (status != xnn_status_success)
    return std::string("creating the operator failed: ") + status_name(status);
  pool_.give(op);
  return {};
}

xnn_operator_t FullyConnected::create_again(const RealBounds& bounds) const {
  // The kernel pointer is only a key of the weights cache, which has the entry.
  static const int8_t key = 0;
  const kernels::DefaultFloatEnv env;  // bounds and multipliers as at packing
  xnn_operator_t op;
  check_created(create(&key, nullptr, nullptr, bounds, &op));
  return op;
}

void FullyConnected::call(xnn_operator_t op, int64_t rows, const int8_t* input, void* output,
                          xnn_quantization_params* params) const {
  xnn_status status;
  const auto m = static_cast<size_t>(rows);
  if (quantized_) {
    status = xnn_reshape_fully_connected_nc_qs8_qc8w(op, m, nullptr);
    if (status == xnn_status_success)
      status = xnn_setup_fully_connected_nc_qs8_qc8w(op, input, static_cast<int8_t*>(output));
  } else {
    // An incomplete tile computes its last row again for each missing one, with the
    // parameters found behind the array, and stores all of them to that row.
    std::fill_n(params + rows, XNN_EXTRA_QUANTIZATION_PARAMS, params[rows - 1]);
    status = xnn_reshape_fully_connected_nc_qd8_f32_qc8w(op, m, nullptr);
    if (status == xnn_status_success)
      status = xnn_setup_fully_connected_nc_qd8_f32_qc8w(op, input, static_cast<float*>(output), params);
  }
  if (status == xnn_status_success) status = xnn_run_operator(op, nullptr);
  check_ran(status);
}

void FullyConnected::run(int64_t rows, const int8_t* input, void* output,
                         xnn_quantization_params* params) const {
  const OperatorLease lease(pool_, [this] { return create_again(bounds_); });
  call(lease.op(), rows, input, output, params);
}

void FullyConnected::run_unbounded(const int8_t* input, float* output, xnn_quantization_params params) const {
  const std::unique_ptr<xnn_operator, xnn_status (*)(xnn_operator_t)> op(create_again(RealBounds{}),
                                                                         xnn_delete_operator);
  xnn_quantization_params all[1 + XNN_EXTRA_QUANTIZATION_PARAMS] = {params};
  call(op.get(), 1, input, output, all);
}

}  // namespace tae::xnnpack
