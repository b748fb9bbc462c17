// Scale and zero point from a minimum and a maximum (0 included), over quant_min ..
// quant_max; symmetric: max|x| / quant_max and zero point 0.
//   choose_qparams            one pair for the tensor: float32 [1], int64 [1]; tensor rule
//   choose_qparams_per_token  one pair a row of [*, K]: float32 [*, 1], int64 [*, 1]; row rule
// Both rules are stated in engines/linear.h: linear_dynamic quantizes with them. NaN
// and infinity raise: no scale fits them.
#include "kernels/choose_qparams.h"

#include "core/autograd.h"
#include "core/round_up.h"
#include "kernels/vec_float_env.h"
#include "ops/quantize_common.h"

namespace tae {
namespace {

using at::Tensor;

struct MinMax {
  float min = 0.f;
  float max = 0.f;
};

MinMax min_max(const kernels::QuantizeKernels& k, DType dtype, const uint8_t* src, int64_t count) {
  MinMax m;
  if (dtype == DType::f32)
    k.min_max_f32(reinterpret_cast<const float*>(src), count, &m.min, &m.max);
  else
    k.min_max_bf16(reinterpret_cast<const uint16_t*>(src), count, &m.min, &m.max);
  return m;
}

kernels::QRange check_range(const char* op, int64_t quant_min, int64_t quant_max, bool symmetric) {
  TAE_CHECK_VALUE(quant_min >= -128 && quant_min <= 255, (Arg{op, "quant_min"}), "be in [-128, 255]",
                  quant_min);
  TAE_CHECK_VALUE(quant_max > quant_min && quant_max <= 255, (Arg{op, "quant_max"}),
                  c10::str("be in [quant_min + 1, 255] = [", quant_min + 1, ", 255]"), quant_max);
  TAE_CHECK_VALUE(
      !symmetric ||
          (quant_min < 0 && quant_max >= 1 && quant_min >= -quant_max - 1 && quant_min <= -quant_max),
      (Arg{op, "quant_min"}),
      c10::str("be -quant_max or -quant_max - 1 when symmetric (quant_max is ", quant_max, ")"), quant_min);
  return {static_cast<int32_t>(quant_min), static_cast<int32_t>(quant_max), 0};
}

// Opaque to the compiler, which would move pure arithmetic across DefaultFloatEnv.
using Rule = kernels::QParams (*)(float, float, bool, const kernels::QRange&);
template <Rule kRule>
[[gnu::noipa]] kernels::QParams apply_rule(const MinMax& m, bool symmetric, const kernels::QRange& range) {
  return kRule(m.min, m.max, symmetric, range);
}

// Whatever rounding mode and flush-to-zero state the thread has.
template <Rule kRule>
kernels::QParams qparams(const MinMax& m, bool symmetric, const kernels::QRange& range) {
  const kernels::DefaultFloatEnv env;
  return apply_rule<kRule>(m, symmetric, range);
}

void check_finite_range(const Arg& arg, const MinMax& m, const char* where, int64_t row) {
  TAE_CHECK_VALUE(std::isfinite(m.min) && std::isfinite(m.max), arg, "hold finite values",
                  where == nullptr ? c10::str("values from ", m.min, " to ", m.max)
                                   : c10::str("values from ", m.min, " to ", m.max, where, row));
  // (max - min) / steps must itself be a number.
  TAE_CHECK_VALUE(std::isfinite(m.max - m.min), arg, "span less than the largest float32",
                  c10::str("values from ", m.min, " to ", m.max));
}

std::tuple<Tensor, Tensor> choose_qparams(const Tensor& input, int64_t quant_min, int64_t quant_max,
                                          bool symmetric) {
  const char* op = "choose_qparams";
  const Arg arg{op, "input"};
  check_tensor(arg, input, kFloatDtypes);
  const kernels::QRange range = check_range(op, quant_min, quant_max, symmetric);
  TAE_CHECK_VALUE(input.numel() > 0, arg, "have at least 1 element", c10::str("sizes ", input.sizes()));

  const Tensor plain = input.is_non_overlapping_and_dense() ? input : dense(arg, input);
  check_storage(arg, plain);
  const uint8_t* src = static_cast<const uint8_t*>(plain.const_data_ptr());
  const DType dtype = dtype_of(plain.scalar_type());
  const int64_t step = size_of_element(plain);
  const int64_t numel = plain.numel();
  const kernels::QuantizeKernels& k = kernels::quantize_kernels(best_isa());
  // One slot a block, so that the result does not depend on the threads.
  const int64_t blocks = ceil_div(numel, kElementGrain);
  std::vector<MinMax> partial(blocks);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * kElementGrain;
      const int64_t count = std::min(kElementGrain, numel - first);
      partial[b] = min_max(k, dtype, src + first * step, count);
    }
  });
  MinMax m;
  for (const MinMax& p : partial) {
    check_finite_range(arg, p, nullptr, 0);
    m.min = std::min(m.min, p.min);
    m.max = std::max(m.max, p.max);
  }
  check_finite_range(arg, m, nullptr, 0);
  const kernels::QParams q = qparams<kernels::tensor_qparams>(m, symmetric, range);
  Tensor scale = empty_output(arg, {1}, at::kFloat);
  Tensor zero_point = empty_output(arg, {1}, at::kLong);
  *scale.mutable_data_ptr<float>() = q.scale;
  *zero_point.mutable_data_ptr<int64_t>() = q.zero_point;
  return {scale, zero_point};
}

std::tuple<Tensor, Tensor> choose_qparams_per_token(const Tensor& input, int64_t quant_min, int64_t quant_max,
                                                    bool symmetric) {
  const char* op = "choose_qparams_per_token";
  const Arg arg{op, "input"};
  check_tensor(arg, input, kFloatDtypes);
  check_min_rank(arg, input, 1);
  const kernels::QRange range = check_range(op, quant_min, quant_max, symmetric);
  c10::SmallVector<int64_t, 6> sizes(input.sizes().begin(), input.sizes().end());
  sizes.back() = 1;
  const int64_t rows = check_numel(arg, sizes, sizeof(int64_t));
  const int64_t cols = input.size(-1);
  Tensor scale = empty_output(arg, sizes, at::kFloat);
  Tensor zero_point = empty_output(arg, sizes, at::kLong);
  if (rows == 0) return {scale, zero_point};

  const RowView view = rows_of(arg, input);
  const uint8_t* src = static_cast<const uint8_t*>(view.data);
  const DType dtype = dtype_of(input.scalar_type());
  const int64_t step = size_of_element(input) * view.stride;
  const kernels::QuantizeKernels& k = kernels::quantize_kernels(best_isa());
  float* const s = scale.mutable_data_ptr<float>();
  int64_t* const zp = zero_point.mutable_data_ptr<int64_t>();
  const int64_t grain = std::max<int64_t>(1, kElementGrain / std::max<int64_t>(cols, 1));
  parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const MinMax m = cols == 0 ? MinMax{} : min_max(k, dtype, src + row * step, cols);
      check_finite_range(arg, m, " in row ", row);
      const kernels::QParams q = qparams<kernels::row_qparams>(m, symmetric, range);
      s[row] = q.scale;
      zp[row] = q.zero_point;
    }
  });
  return {scale, zero_point};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "choose_qparams(Tensor input, int quant_min, int quant_max, bool symmetric=False) "
      "-> (Tensor scale, Tensor zero_point)");
  m.def(
      "choose_qparams_per_token(Tensor input, int quant_min, int quant_max, "
      "bool symmetric=False) -> (Tensor scales, Tensor zero_points)");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("choose_qparams", TORCH_FN(choose_qparams));
  m.impl("choose_qparams_per_token", TORCH_FN(choose_qparams_per_token));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("choose_qparams", TORCH_FN((InferenceOnly<"choose_qparams", choose_qparams>::call)));
  m.impl("choose_qparams_per_token",
         TORCH_FN((InferenceOnly<"choose_qparams_per_token", choose_qparams_per_token>::call)));
}

}  // namespace tae
