// The rule of engines/linear.h as plain loops: the definition that other engines are
// compared with, and the one that runs where all of them refuse. One thread, baseline
// instructions, accumulators of 64 bits, so that it accepts every shape.
#include "engines/linear.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "engines/reference/bf16.h"
#include "engines/reference/output.h"
#include "kernels/choose_qparams.h"
#include "kernels/post_ops.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

using reference::from_bf16;
using reference::to_quantized;

// Element i of a float or quantized buffer as a real number.
float real_value(const void* data, DType dtype, int64_t i, float scale, int32_t zero_point) {
  switch (dtype) {
    case DType::f32:
      return static_cast<const float*>(data)[i];
    case DType::bf16:
      return from_bf16(static_cast<const uint16_t*>(data)[i]);
    case DType::qs8:
      return static_cast<float>(static_cast<const int8_t*>(data)[i] - zero_point) * scale;
    default:
      return static_cast<float>(static_cast<const uint8_t*>(data)[i] - zero_point) * scale;
  }
}

class ReferenceLinear final : public LinearImpl {
 public:
  explicit ReferenceLinear(const LinearProblem& p)
      : p_(p),
        weight_(p.weight, p.weight + p.n * p.k),
        weight_scale_(p.weight_scale, p.weight_scale + p.weight_scale_size) {
    if (p.weight_zero_point != nullptr)
      weight_zero_point_.assign(p.weight_zero_point, p.weight_zero_point + p.weight_scale_size);
    if (p.bias != nullptr) bias_.assign(p.bias, p.bias + p.n);
    if (p.slope != nullptr) slope_.assign(p.slope, p.slope + p.n);
    if (p.affine_weight != nullptr) {
      affine_weight_.assign(p.affine_weight, p.affine_weight + p.n);
      affine_bias_.assign(p.affine_bias, p.affine_bias + p.n);
    }
    // The problem's arrays are dead after make.
    p_.weight = nullptr;
    p_.weight_scale = nullptr;
    p_.weight_zero_point = nullptr;
    p_.bias = nullptr;
    p_.slope = nullptr;
    p_.affine_weight = nullptr;
    p_.affine_bias = nullptr;
  }

  void run(const LinearArgs& args) const override {
    const kernels::DefaultFloatEnv env;
    run_rows(args);
  }

  const char* engine() const override { return "reference"; }
  std::string description() const override { return "plain loops, int64 accumulators"; }
  size_t packed_bytes() const override {
    const size_t floats = weight_scale_.size() + bias_.size() + slope_.size() + 2 * affine_weight_.size();
    return weight_.size() + sizeof(float) * floats + sizeof(int32_t) * weight_zero_point_.size();
  }

 private:
  [[gnu::noinline]] void run_rows(const LinearArgs& args) const {
    kernels::QParams input{p_.input_scale, p_.input_zero_point};
    if (p_.qparams_in_call) input = {args.input_scale, args.input_zero_point};
    if (p_.dynamic && !p_.dynamic_quant.per_row) input = choose(args, 0, args.m);
    std::vector<int16_t> row(p_.k);  // x - zp_x: |x - zp_x| <= 255
    for (int64_t m = 0; m < args.m; ++m) {
      if (p_.dynamic && p_.dynamic_quant.per_row) input = choose(args, m, m + 1);
      for (int64_t k = 0; k < p_.k; ++k) row[k] = centred_input(args, m * args.input_stride + k, input);
      for (int64_t n = 0; n < p_.n; ++n)
        store(args.output, m * p_.n + n, post_processed(args, m * p_.n + n, real(row, n, input.scale)));
    }
  }

  // Parameters of rows [begin, end) together.
  kernels::QParams choose(const LinearArgs& args, int64_t begin, int64_t end) const {
    float mn = 0.f, mx = 0.f;
    for (int64_t m = begin; m < end; ++m) {
      for (int64_t k = 0; k < p_.k; ++k) {
        const float x = real_value(args.input, p_.input_dtype, m * args.input_stride + k, 1.f, 0);
        if (!std::isfinite(x)) return {std::nanf(""), 0};
        mn = x < mn ? x : mn;
        mx = x > mx ? x : mx;
      }
    }
    const DynamicQuant& d = p_.dynamic_quant;
    return d.per_row ? kernels::row_qparams(mn, mx, d.symmetric, d.reduce_range)
                     : kernels::tensor_qparams(mn, mx, d.symmetric, d.reduce_range);
  }

  int16_t centred_input(const LinearArgs& args, int64_t i, const kernels::QParams& q) const {
    if (p_.input_dtype == DType::qu8)
      return static_cast<int16_t>(static_cast<const uint8_t*>(args.input)[i] - q.zero_point);
    if (p_.input_dtype == DType::qs8)
      return static_cast<int16_t>(static_cast<const int8_t*>(args.input)[i] - q.zero_point);
    const kernels::QRange range =
        kernels::dynamic_range(p_.dynamic_quant.symmetric, p_.dynamic_quant.reduce_range);
    const float x = real_value(args.input, p_.input_dtype, i, 1.f, 0);
    const int32_t value = to_quantized(x * (1.f / q.scale), q.zero_point, range.lo, range.hi);
    return static_cast<int16_t>(value - q.zero_point);
  }

  // f32(acc) * (s_x * s_w) + bias of output column n.
  float real(const std::vector<int16_t>& row, int64_t n, float input_scale) const {
    const int64_t channel = weight_scale_.size() == 1 ? 0 : n;
    const int32_t zero_point = weight_zero_point_.empty() ? 0 : weight_zero_point_[channel];
    const int8_t* weight = weight_.data() + n * p_.k;
    constexpr int64_t kBlock = 4096;  // 4096 * 255 * 255 < 2^31: the inner sum fits 32 bits
    int64_t acc = 0;
    for (int64_t begin = 0; begin < p_.k; begin += kBlock) {
      const int64_t end = begin + kBlock < p_.k ? begin + kBlock : p_.k;
      int32_t block = 0;
      for (int64_t k = begin; k < end; ++k) block += row[k] * static_cast<int16_t>(weight[k] - zero_point);
      acc += block;
    }
    const float r = static_cast<float>(acc) * (input_scale * weight_scale_[channel]);
    return bias_.empty() ? r : r + bias_[n];
  }

  float post_processed(const LinearArgs& args, int64_t i, float r) const {
    for (const PostOp& op : p_.post_ops) {
      float operand = 0.f, shift = 0.f;
      if (op.kind == PostOp::Kind::add) {
        operand = real_value(args.other, args.other_dtype, i, args.other_scale, args.other_zero_point);
      } else if (op.kind == PostOp::Kind::prelu) {
        operand = slope_[i % p_.n];
      } else if (op.kind == PostOp::Kind::affine) {
        operand = affine_weight_[i % p_.n];
        shift = affine_bias_[i % p_.n];
      }
      r = kernels::apply_post_op(op, r, operand, shift);
    }
    return r;
  }

  void store(void* output, int64_t i, float r) const {
    reference::store(output, p_.output_dtype, i, r, p_.output_scale, p_.output_zero_point);
  }

  LinearProblem p_;
  std::vector<int8_t> weight_;
  std::vector<float> weight_scale_;
  std::vector<int32_t> weight_zero_point_;
  std::vector<float> bias_;
  std::vector<float> slope_;
  std::vector<float> affine_weight_, affine_bias_;
};

}  // namespace

Result<LinearImplPtr> make_linear_reference(const LinearProblem& p) {
  return LinearImplPtr(std::make_shared<ReferenceLinear>(p));
}

}  // namespace tae
