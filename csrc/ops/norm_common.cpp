#include "ops/norm_common.h"

#include <bit>
#include <cmath>

namespace tae {

Parameter check_parameter(const Arg& arg, const std::optional<at::Tensor>& t, at::IntArrayRef sizes,
                          const char* what) {
  Parameter p;
  if (!present(t)) return p;
  check_tensor(arg, *t, kFloatDtypes);
  check_same_sizes(arg, *t, sizes, what);
  p.owner = dense(arg, *t);
  if (t->scalar_type() == at::kFloat) {
    p.data = span_of<float>(arg, p.owner).begin();
    return p;
  }
  const Span<const at::BFloat16> values = span_of<at::BFloat16>(arg, p.owner);
  p.widened = make_vector<float>(arg, values.size());
  for (int64_t i = 0; i < values.size(); ++i)
    p.widened[i] = std::bit_cast<float>(static_cast<uint32_t>(values[i].x) << 16);
  p.data = p.widened.data();
  return p;
}

double check_eps(const char* op, double eps) {
  TAE_CHECK_VALUE(std::isfinite(eps) && eps >= 0., (Arg{op, "eps"}), "be a finite number of at least 0", eps);
  return eps;
}

kernels::RealRows check_real(const Arg& arg, const Arg& scale_arg, const Arg& zero_point_arg,
                             const at::Tensor& t, double scale, int64_t zero_point) {
  check_tensor(arg, t, kRealDtypes);
  kernels::RealRows rows;
  rows.dtype = dtype_of(t.scalar_type());
  if (is_quantized(rows.dtype)) {
    rows.scale = check_scale(scale_arg, scale);
    rows.zero_point =
        check_zero_point(zero_point_arg, zero_point, quant_min(rows.dtype), quant_max(rows.dtype));
    return rows;
  }
  TAE_CHECK_VALUE(scale == 1., scale_arg, "be 1.0 for a float tensor", scale);
  TAE_CHECK_VALUE(zero_point == 0, zero_point_arg, "be 0 for a float tensor", zero_point);
  return rows;
}

RowView norm_rows(const Arg& arg, const at::Tensor& t, size_t dims, int64_t count) {
  if (dims == 1) return rows_of(arg, t);
  RowView view;
  view.owner = dense(arg, t);
  check_storage(arg, view.owner);
  view.data = view.owner.const_data_ptr();
  view.rows = t.numel() / count;
  view.stride = count;
  return view;
}

}  // namespace tae
