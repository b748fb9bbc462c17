#include "ops/matmul_common.h"

#include "ops/matrix_offsets.h"

namespace tae {

void check_sum_length(const Arg& arg, const char* size, int64_t terms) {
  TAE_CHECK_VALUE(terms <= kMaxMatmulK, arg,
                  c10::str("have ", size, " of at most ", kMaxMatmulK, ", the most whose sum fits int32"),
                  terms);
}

MatrixOperand matrix_operand(const Arg& arg, const kernels::Operand& checked, const at::Tensor& t,
                             bool any_side, at::IntArrayRef batch, int64_t count) {
  const auto side_by_side = [&](int64_t d) { return t.size(d) <= 1 || t.stride(d) == 1; };
  MatrixOperand o;
  const bool as_it_is = t.numel() == 0 || side_by_side(-1) || (any_side && side_by_side(-2));
  o.owner = as_it_is ? t : dense(arg, t);
  o.offsets = matrix_offsets(arg, o.owner, batch, count);
  o.data.data = static_cast<const uint8_t*>(o.owner.const_data_ptr());
  o.data.dtype = checked.dtype;
  o.data.scale = checked.scale;
  o.data.zero_point = checked.zero_point;
  // Strides of dimensions of size 1 mean nothing: as if there was a next element.
  o.data.row_stride = t.size(-2) <= 1 ? 1 : o.owner.stride(-2);
  o.data.column_stride = t.size(-1) <= 1 ? 1 : o.owner.stride(-1);
  o.data.offset = o.offsets.data();
  return o;
}

}  // namespace tae
