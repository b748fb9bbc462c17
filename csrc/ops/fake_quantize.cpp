// What fake-quantize modules compute in training (torch_ao_ext/quantization/fake_quantize.py):
// private ops, one pass over the values each.
//   _min_max           [smallest, largest], both NaN if any value is; per_row: [N, 2] of axis 0
//   _fake_quantize     y = (clamp(round(x / s) + z, quant_min, quant_max) - z) s
//   its _backward      dx = m dy, m = 1 where nothing is cut (straight-through estimator)
// A weight whose product has a batch norm behind it is rounded times the batch norm's factor f,
// and divided by it again; rows c are axis 0:
//   _weight_fake_quantize   y = (clamp(round(w f[c] / s[c]) + z[c], ..) - z[c]) s[c] / f[c]
//   its _backward           dw = m dy, df[c] = sum(dy (m w - y)) / f[c]
// Numerics of torch.fake_quantize_per_tensor_affine and _per_channel_affine.
#include "kernels/fake_quantize.h"

#include <cmath>

#include "core/autograd.h"
#include "core/round_up.h"
#include "ops/quantize_common.h"

namespace tae {
namespace {

using at::Tensor;

struct Rows {
  Tensor weight;  // dense
  int64_t count = 0;
  int64_t length = 0;
  std::vector<kernels::RowRule> rules;
};

template <typename T>
T at_channel(const std::vector<T>& values, int64_t c) {
  return values.size() == 1 ? values[0] : values[c];
}

void check_bounds(const char* op, int64_t quant_min, int64_t quant_max) {
  TAE_CHECK_VALUE(-128 <= quant_min && quant_min < quant_max && quant_max <= 255, (Arg{op, "quant_max"}),
                  c10::str("be above quant_min (", quant_min, "), both within [-128, 255]"), quant_max);
}

kernels::RowRule check_rule(const char* op, const Tensor& scale, const Tensor& zero_point, int64_t quant_min,
                            int64_t quant_max) {
  check_tensor({op, "scale"}, scale, {at::kFloat});
  check_per_channel({op, "scale"}, scale, 1);
  check_tensor({op, "zero_point"}, zero_point, {at::kInt, at::kLong});
  check_per_channel({op, "zero_point"}, zero_point, 1);
  check_bounds(op, quant_min, quant_max);
  const float s = scale_values({op, "scale"}, scale, /*allow_double=*/false)[0];
  const float z = static_cast<float>(zero_point_values(
      {op, "zero_point"}, zero_point, static_cast<int32_t>(quant_min), static_cast<int32_t>(quant_max))[0]);
  return {1.f, s, static_cast<float>(quant_min) - z, static_cast<float>(quant_max) - z};
}

// [rows][2] of `rows` runs of equal length.
void min_max_rows(const float* src, int64_t rows, int64_t length, float* out) {
  const auto run = kernels::fake_quantize_kernels(best_isa()).min_max;
  parallel_for(rows, std::max<int64_t>(1, kElementGrain / length), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) run(src + r * length, length, out + 2 * r, out + 2 * r + 1);
  });
}

Tensor min_max(const Tensor& input, bool per_row) {
  const char* op = "_min_max";
  const Arg arg{op, "input"};
  check_tensor(arg, input, {at::kFloat});
  if (per_row) check_min_rank(arg, input, 1);
  TAE_CHECK_VALUE(input.numel() > 0, arg, "have at least 1 element", c10::str("sizes ", input.sizes()));
  const bool as_it_lies = !per_row && input.is_non_overlapping_and_dense();
  const Tensor plain = as_it_lies ? input : dense(arg, input);
  check_storage(arg, plain);
  const float* src = static_cast<const float*>(plain.const_data_ptr());
  const int64_t count = plain.numel();
  if (per_row) {
    Tensor result = empty_output(arg, {input.size(0), 2}, at::kFloat);
    min_max_rows(src, input.size(0), count / input.size(0), result.mutable_data_ptr<float>());
    return result;
  }
  Tensor result = empty_output(arg, {2}, at::kFloat);
  float* const out = result.mutable_data_ptr<float>();
  const int64_t parts = std::min<int64_t>(num_threads(), ceil_div(count, kElementGrain));
  const int64_t length = count / parts, rest = count % parts;
  std::vector<float> found = make_vector<float>(arg, 2 * (parts + 1));
  min_max_rows(src, parts, length, found.data());
  found[2 * parts] = found[0];
  found[2 * parts + 1] = found[1];
  if (rest > 0) min_max_rows(src + parts * length, 1, rest, &found[2 * parts]);
  out[0] = found[0];
  out[1] = found[1];
  for (int64_t p = 1; p <= parts; ++p) {
    const float mn = found[2 * p], mx = found[2 * p + 1];
    out[0] = std::isnan(mn) || mn < out[0] ? mn : out[0];
    out[1] = std::isnan(mx) || mx > out[1] ? mx : out[1];
  }
  return result;
}

Tensor fake_quantize(const Tensor& input, const Tensor& scale, const Tensor& zero_point, int64_t quant_min,
                     int64_t quant_max) {
  const char* op = "_fake_quantize";
  const Arg arg{op, "input"};
  check_tensor(arg, input, {at::kFloat});
  const kernels::RowRule rule = check_rule(op, scale, zero_point, quant_min, quant_max);
  const Elementwise e = elementwise(arg, input, at::kFloat);
  const float* src = reinterpret_cast<const float*>(e.src);
  float* dst = reinterpret_cast<float*>(e.dst);
  const auto run = kernels::fake_quantize_kernels(best_isa()).round;
  parallel_for(e.numel, kElementGrain,
               [&](int64_t begin, int64_t end) { run(src + begin, end - begin, rule, dst + begin); });
  return e.output;
}

Tensor fake_quantize_backward(const Tensor& grad, const Tensor& input, const Tensor& scale,
                              const Tensor& zero_point, int64_t quant_min, int64_t quant_max) {
  const char* op = "_fake_quantize_backward";
  const Arg arg{op, "input"}, grad_arg{op, "grad"};
  check_tensor(arg, input, {at::kFloat});
  const kernels::RowRule rule = check_rule(op, scale, zero_point, quant_min, quant_max);
  check_tensor(grad_arg, grad, {at::kFloat});
  check_same_sizes(grad_arg, grad, input.sizes(), "the sizes of input");
  check_storage(grad_arg, grad);
  const Elementwise e = elementwise(arg, input, at::kFloat);
  if (e.numel == 0) return e.output;
  // In the memory order of the input.
  const bool same = grad.strides() == e.output.strides();
  if (!same) e.output.copy_(grad);
  const Tensor& up = same ? grad : e.output;
  const float* src = reinterpret_cast<const float*>(e.src);
  const float* g = static_cast<const float*>(up.const_data_ptr());
  float* dst = reinterpret_cast<float*>(e.dst);
  const auto run = kernels::fake_quantize_kernels(best_isa()).pass;
  parallel_for(e.numel, kElementGrain, [&](int64_t begin, int64_t end) {
    run(g + begin, src + begin, end - begin, rule, dst + begin);
  });
  return e.output;
}

Rows check_rows(const char* op, const Tensor& weight, const Tensor& factor, const Tensor& scale,
                const Tensor& zero_point, int64_t quant_min, int64_t quant_max) {
  const Arg arg{op, "weight"};
  check_tensor(arg, weight, {at::kFloat});
  check_min_rank(arg, weight, 1);
  Rows rows;
  rows.count = weight.size(0);
  const Arg factor_arg{op, "factor"};
  check_tensor(factor_arg, factor, {at::kFloat});
  check_rank(factor_arg, factor, 1);
  check_size(factor_arg, factor, 0, rows.count, "weight.size(0)");
  check_tensor({op, "scale"}, scale, {at::kFloat});
  check_per_channel({op, "scale"}, scale, rows.count);
  check_tensor({op, "zero_point"}, zero_point, {at::kInt, at::kLong});
  check_per_channel({op, "zero_point"}, zero_point, rows.count);
  check_bounds(op, quant_min, quant_max);
  const std::vector<float> scales = scale_values({op, "scale"}, scale, /*allow_double=*/false);
  const std::vector<int32_t> points = zero_point_values(
      {op, "zero_point"}, zero_point, static_cast<int32_t>(quant_min), static_cast<int32_t>(quant_max));
  const Tensor plain = dense(factor_arg, factor);
  const Span<const float> factors = span_of<float>(factor_arg, plain);
  rows.rules = make_vector<kernels::RowRule>(factor_arg, rows.count);
  for (int64_t c = 0; c < rows.count; ++c) {
    const float f = factors.begin()[c];
    TAE_CHECK_VALUE(std::isfinite(f) && f != 0.f, factor_arg, "hold finite numbers other than 0", f);
    const float z = static_cast<float>(at_channel(points, c));
    rows.rules[c] = {f, at_channel(scales, c), static_cast<float>(quant_min) - z,
                     static_cast<float>(quant_max) - z};
  }
  rows.weight = dense(arg, weight);
  rows.length = rows.count > 0 ? weight.numel() / rows.count : 0;
  return rows;
}

Tensor weight_fake_quantize(const Tensor& weight, const Tensor& factor, const Tensor& scale,
                            const Tensor& zero_point, int64_t quant_min, int64_t quant_max) {
  const char* op = "_weight_fake_quantize";
  const Rows rows = check_rows(op, weight, factor, scale, zero_point, quant_min, quant_max);
  Tensor result = empty_output({op, "weight"}, weight.sizes(), at::kFloat);
  if (result.numel() == 0) return result;
  const float* src = span_of<float>({op, "weight"}, rows.weight).begin();
  float* const dst = result.mutable_data_ptr<float>();
  const auto forward = kernels::fake_quantize_kernels(best_isa()).forward;
  parallel_for(rows.count, std::max<int64_t>(1, kElementGrain / rows.length),
               [&](int64_t begin, int64_t end) {
                 for (int64_t c = begin; c < end; ++c)
                   forward(src + c * rows.length, rows.length, rows.rules[c], dst + c * rows.length);
               });
  return result;
}

std::tuple<Tensor, Tensor> weight_fake_quantize_backward(const Tensor& grad, const Tensor& weight,
                                                         const Tensor& factor, const Tensor& scale,
                                                         const Tensor& zero_point, int64_t quant_min,
                                                         int64_t quant_max) {
  const char* op = "_weight_fake_quantize_backward";
  const Rows rows = check_rows(op, weight, factor, scale, zero_point, quant_min, quant_max);
  const Arg arg{op, "grad"};
  check_tensor(arg, grad, {at::kFloat});
  check_same_sizes(arg, grad, weight.sizes(), "the sizes of weight");
  const Tensor plain = dense(arg, grad);
  Tensor weight_grad = empty_output({op, "weight"}, weight.sizes(), at::kFloat);
  Tensor factor_grad = empty_output({op, "factor"}, {rows.count}, at::kFloat);
  float* const sums = factor_grad.mutable_data_ptr<float>();
  if (weight_grad.numel() == 0) {
    std::fill(sums, sums + rows.count, 0.f);
    return {weight_grad, factor_grad};
  }
  const float* src = span_of<float>({op, "weight"}, rows.weight).begin();
  const float* up = span_of<float>(arg, plain).begin();
  float* const dst = weight_grad.mutable_data_ptr<float>();
  const auto backward = kernels::fake_quantize_kernels(best_isa()).backward;
  parallel_for(rows.count, std::max<int64_t>(1, kElementGrain / rows.length),
               [&](int64_t begin, int64_t end) {
                 for (int64_t c = begin; c < end; ++c) {
                   const int64_t at = c * rows.length;
                   const double sum = backward(up + at, src + at, rows.length, rows.rules[c], dst + at);
                   sums[c] = static_cast<float>(sum / static_cast<double>(rows.rules[c].factor));
                 }
               });
  return {weight_grad, factor_grad};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def("_min_max(Tensor input, bool per_row=False) -> Tensor");
  m.def(
      "_fake_quantize(Tensor input, Tensor scale, Tensor zero_point, int quant_min, int quant_max) "
      "-> Tensor");
  m.def(
      "_fake_quantize_backward(Tensor grad, Tensor input, Tensor scale, Tensor zero_point, int quant_min, "
      "int quant_max) -> Tensor");
  m.def(
      "_weight_fake_quantize(Tensor weight, Tensor factor, Tensor scale, Tensor zero_point, int quant_min, "
      "int quant_max) -> Tensor");
  m.def(
      "_weight_fake_quantize_backward(Tensor grad, Tensor weight, Tensor factor, Tensor scale, "
      "Tensor zero_point, int quant_min, int quant_max) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("_min_max", TORCH_FN(min_max));
  m.impl("_fake_quantize", TORCH_FN(fake_quantize));
  m.impl("_fake_quantize_backward", TORCH_FN(fake_quantize_backward));
  m.impl("_weight_fake_quantize", TORCH_FN(weight_fake_quantize));
  m.impl("_weight_fake_quantize_backward", TORCH_FN(weight_fake_quantize_backward));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("_min_max", TORCH_FN((InferenceOnly<"_min_max", min_max>::call)));
  m.impl("_fake_quantize", TORCH_FN((InferenceOnly<"_fake_quantize", fake_quantize>::call)));
  m.impl("_fake_quantize_backward",
         TORCH_FN((InferenceOnly<"_fake_quantize_backward", fake_quantize_backward>::call)));
  m.impl("_weight_fake_quantize",
         TORCH_FN((InferenceOnly<"_weight_fake_quantize", weight_fake_quantize>::call)));
  m.impl("_weight_fake_quantize_backward",
         TORCH_FN((InferenceOnly<"_weight_fake_quantize_backward", weight_fake_quantize_backward>::call)));
}

}  // namespace tae
