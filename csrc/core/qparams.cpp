#include "core/qparams.h"

#include <cmath>

namespace tae {
namespace {

void check_one_element(const Arg& arg, const at::Tensor& t) {
  TAE_CHECK_VALUE(t.numel() == 1, arg, "have 1 element", c10::str("sizes ", t.sizes()));
}

// Which element of how many, in an error about one of them.
std::string at_position(int64_t i, int64_t size) {
  return size == 1 ? std::string() : c10::str(" at position ", i);
}

template <typename T, typename Out, typename Check>
std::vector<Out> convert(const Arg& arg, const at::Tensor& t, const Check& check) {
  const at::Tensor plain = dense(arg, t);
  const Span<const T> values = span_of<T>(arg, plain);
  std::vector<Out> out;
  out.reserve(values.size());
  for (int64_t i = 0; i < values.size(); ++i) {
    check(values[i], i, values.size());
    if constexpr (std::is_same_v<T, double>)
      out.push_back(nearest_float(values[i]));
    else
      out.push_back(static_cast<Out>(values[i]));
  }
  return out;
}

}  // namespace

double scale_value(const Arg& arg, const at::Tensor& t) {
  check_tensor(arg, t, {at::kFloat, at::kDouble});
  check_one_element(arg, t);
  if (t.scalar_type() == at::kDouble) return span_of<double>(arg, dense(arg, t))[0];
  return span_of<float>(arg, dense(arg, t))[0];
}

int64_t zero_point_value(const Arg& arg, const at::Tensor& t) {
  check_tensor(arg, t, {at::kInt, at::kLong});
  check_one_element(arg, t);
  if (t.scalar_type() == at::kInt) return span_of<int32_t>(arg, dense(arg, t))[0];
  return span_of<int64_t>(arg, dense(arg, t))[0];
}

std::vector<float> scale_values(const Arg& arg, const at::Tensor& t, bool allow_double) {
  const auto check = [&](double s, int64_t i, int64_t size) {
    const float f = nearest_float(s);
    TAE_CHECK_VALUE(std::isnormal(f) && f > 0.f, arg,
                    size == 1 ? "be a finite, normal float32 number above 0"
                              : "hold finite, normal float32 numbers above 0",
                    c10::str(s, at_position(i, size)));
  };
  if (allow_double && t.scalar_type() == at::kDouble) return convert<double, float>(arg, t, check);
  return convert<float, float>(arg, t, check);
}

std::vector<int32_t> zero_point_values(const Arg& arg, const at::Tensor& t, int64_t lo, int64_t hi) {
  const auto check = [&](int64_t z, int64_t i, int64_t size) {
    TAE_CHECK_VALUE(z >= lo && z <= hi, arg,
                    c10::str(size == 1 ? "be in [" : "hold values in [", lo, ", ", hi, "]"),
                    c10::str(z, at_position(i, size)));
  };
  if (t.scalar_type() == at::kLong) return convert<int64_t, int32_t>(arg, t, check);
  return convert<int32_t, int32_t>(arg, t, check);
}

std::vector<float> finite_values(const Arg& arg, const at::Tensor& t) {
  return convert<float, float>(arg, t, [&](float v, int64_t i, int64_t size) {
    TAE_CHECK_VALUE(std::isfinite(v), arg, "hold finite values", c10::str(v, at_position(i, size)));
  });
}

QuantBounds check_bounds(const char* op, int64_t quant_min, int64_t quant_max, DType dtype) {
  const int64_t lo = tae::quant_min(dtype);
  const int64_t hi = tae::quant_max(dtype);
  TAE_CHECK_VALUE(quant_min >= lo && quant_min <= hi, (Arg{op, "quant_min"}),
                  c10::str("be in [", lo, ", ", hi, "], the range of the dtype"), quant_min);
  TAE_CHECK_VALUE(quant_max >= quant_min && quant_max <= hi, (Arg{op, "quant_max"}),
                  c10::str("be in [quant_min, ", hi, "] = [", quant_min, ", ", hi, "]"), quant_max);
  return {static_cast<int32_t>(quant_min), static_cast<int32_t>(quant_max)};
}

OutputQParams check_output_qparams(const char* op, DType dtype, double scale, int64_t zero_point) {
  const Arg scale_arg{op, "output_scale"}, zero_arg{op, "output_zero_point"};
  if (is_quantized(dtype))
    return {check_scale(scale_arg, scale),
            check_zero_point(zero_arg, zero_point, quant_min(dtype), quant_max(dtype))};
  TAE_CHECK_VALUE(scale == 1.0, scale_arg, "be 1.0 for a float output", scale);
  TAE_CHECK_VALUE(zero_point == 0, zero_arg, "be 0 for a float output", zero_point);
  return {};
}

}  // namespace tae
