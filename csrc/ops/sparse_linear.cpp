// y = quantize(post_ops(s_x * s_w[n] * sum_k (x[m][k] - zp_x) * w[n][k] + bias[n])), w sparse
//
// The weight [N, K] is given by its nonzero blocks in block compressed rows, as
// torch.sparse_bsr holds them: weight [blocks, 1, 4] or [blocks, 8, 1] int8, row_offsets
// [rows of blocks + 1] int32, column_indices [blocks] int16 or int32 in units of blocks.
// Everything else, and every rounding, is as in linear and linear_dynamic: the results
// are those of the dense weight with zeros.
#include "core/autograd.h"
#include "ops/linear_common.h"

namespace tae {
namespace {

using at::Tensor;
using OptTensor = std::optional<at::Tensor>;
using OptDtype = std::optional<at::ScalarType>;

const OptTensor kNone;

SparseIndex index_of(const char* op, const Tensor& row_offsets, const Tensor& column_indices,
                     at::IntArrayRef weight_size) {
  const Arg size{op, "weight_size"};
  TAE_CHECK_VALUE(weight_size.size() == 2, size, "be [out_features, in_features]", weight_size);
  return {row_offsets, column_indices, weight_size[0], weight_size[1]};
}

LinearBaked bake_static(const char* op, at::ScalarType input_dtype, double input_scale,
                        int64_t input_zero_point, const Tensor& weight, const Tensor& weight_scale,
                        const OptTensor& bias, double output_scale, int64_t output_zero_point,
                        const OptDtype& output_dtype) {
  const at::ScalarType output = output_dtype.value_or(input_dtype);
  check_dtype({op, "output_dtype"}, output, {at::kByte, at::kChar, at::kFloat, at::kBFloat16});
  LinearBaked baked{op, weight, weight_scale, kNone, bias};
  baked.input_dtype = dtype_of(input_dtype);
  baked.output_dtype = dtype_of(output);
  bake_static_qparams(&baked, input_scale, input_zero_point, output_scale, output_zero_point);
  return baked;
}

LinearBaked bake_dynamic(const char* op, at::ScalarType input_dtype, const Tensor& weight,
                         const Tensor& weight_scale, const OptTensor& bias, const DynamicQuant& quant,
                         const OptDtype& output_dtype) {
  const at::ScalarType output = output_dtype.value_or(input_dtype);
  check_dtype({op, "output_dtype"}, output, {at::kFloat, at::kBFloat16});
  LinearBaked baked{op, weight, weight_scale, kNone, bias};
  baked.dynamic = true;
  baked.dynamic_quant = quant;
  baked.input_dtype = dtype_of(input_dtype);
  baked.output_dtype = dtype_of(output);
  return baked;
}

Tensor sparse_linear(const Tensor& input, double input_scale, int64_t input_zero_point, const Tensor& weight,
                     const Tensor& row_offsets, const Tensor& column_indices, at::IntArrayRef weight_size,
                     const Tensor& weight_scale, const OptTensor& bias, double output_scale,
                     int64_t output_zero_point, OptDtype output_dtype, std::string_view post_ops,
                     at::ArrayRef<double> post_op_args, const OptTensor& other, double other_scale,
                     int64_t other_zero_point) {
  const char* op = "sparse_linear";
  check_tensor({op, "input"}, input, {at::kByte, at::kChar});
  const SparseIndex index = index_of(op, row_offsets, column_indices, weight_size);
  LinearBaked baked = bake_static(op, input.scalar_type(), input_scale, input_zero_point, weight,
                                  weight_scale, bias, output_scale, output_zero_point, output_dtype);
  baked.post_ops = post_ops;
  baked.post_op_args = post_op_args;
  baked.sparse = &index;
  return run_linear(baked, input, {other, other_scale, other_zero_point});
}

Tensor sparse_linear_dynamic(const Tensor& input, const Tensor& weight, const Tensor& row_offsets,
                             const Tensor& column_indices, at::IntArrayRef weight_size,
                             const Tensor& weight_scale, const OptTensor& bias, bool per_row, bool symmetric,
                             bool reduce_range, OptDtype output_dtype, std::string_view post_ops,
                             at::ArrayRef<double> post_op_args, const OptTensor& other) {
  const char* op = "sparse_linear_dynamic";
  check_tensor({op, "input"}, input, {at::kFloat, at::kBFloat16});
  const SparseIndex index = index_of(op, row_offsets, column_indices, weight_size);
  LinearBaked baked = bake_dynamic(op, input.scalar_type(), weight, weight_scale, bias,
                                   {per_row, symmetric, reduce_range}, output_dtype);
  baked.post_ops = post_ops;
  baked.post_op_args = post_op_args;
  baked.sparse = &index;
  return run_linear(baked, input, {other});
}

// Packs as the first call of `sparse_linear` with the same arguments would.
void prepack_sparse_linear(const Tensor& weight, const Tensor& row_offsets, const Tensor& column_indices,
                           at::IntArrayRef weight_size, const Tensor& weight_scale, const OptTensor& bias,
                           at::ScalarType input_dtype, double input_scale, int64_t input_zero_point,
                           double output_scale, int64_t output_zero_point, OptDtype output_dtype,
                           std::string_view post_ops, at::ArrayRef<double> post_op_args) {
  const char* op = "_prepack_sparse_linear";
  check_dtype({op, "input_dtype"}, input_dtype, {at::kByte, at::kChar});
  const SparseIndex index = index_of(op, row_offsets, column_indices, weight_size);
  LinearBaked baked = bake_static(op, input_dtype, input_scale, input_zero_point, weight, weight_scale, bias,
                                  output_scale, output_zero_point, output_dtype);
  baked.post_ops = post_ops;
  baked.post_op_args = post_op_args;
  baked.sparse = &index;
  check_linear_weights(baked);
  if (index.n > 0) packed_linear(baked);
}

// Packs as the first call of `sparse_linear_dynamic` with the same arguments would.
void prepack_sparse_linear_dynamic(const Tensor& weight, const Tensor& row_offsets,
                                   const Tensor& column_indices, at::IntArrayRef weight_size,
                                   const Tensor& weight_scale, const OptTensor& bias, OptDtype input_dtype,
                                   bool per_row, bool symmetric, bool reduce_range, OptDtype output_dtype,
                                   std::string_view post_ops, at::ArrayRef<double> post_op_args) {
  const char* op = "_prepack_sparse_linear_dynamic";
  const at::ScalarType dtype = input_dtype.value_or(at::kFloat);
  check_dtype({op, "input_dtype"}, dtype, {at::kFloat, at::kBFloat16});
  const SparseIndex index = index_of(op, row_offsets, column_indices, weight_size);
  LinearBaked baked =
      bake_dynamic(op, dtype, weight, weight_scale, bias, {per_row, symmetric, reduce_range}, output_dtype);
  baked.post_ops = post_ops;
  baked.post_op_args = post_op_args;
  baked.sparse = &index;
  check_linear_weights(baked);
  if (index.n > 0) packed_linear(baked);
}

// Under a fake or meta tensor there is nothing to pack.
void prepack_sparse_linear_meta(const Tensor&, const Tensor&, const Tensor&, at::IntArrayRef, const Tensor&,
                                const OptTensor&, at::ScalarType, double, int64_t, double, int64_t, OptDtype,
                                std::string_view, at::ArrayRef<double>) {}
void prepack_sparse_linear_dynamic_meta(const Tensor&, const Tensor&, const Tensor&, at::IntArrayRef,
                                        const Tensor&, const OptTensor&, OptDtype, bool, bool, bool, OptDtype,
                                        std::string_view, at::ArrayRef<double>) {}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "sparse_linear(Tensor input, float input_scale, int input_zero_point, Tensor weight, "
      "Tensor row_offsets, Tensor column_indices, int[] weight_size, Tensor weight_scale, "
      "Tensor? bias, float output_scale, int output_zero_point, ScalarType? output_dtype=None, "
      "str post_ops='', float[] post_op_args=[], Tensor? other=None, float other_scale=1., "
      "int other_zero_point=0) -> Tensor");
  m.def(
      "sparse_linear_dynamic(Tensor input, Tensor weight, Tensor row_offsets, "
      "Tensor column_indices, int[] weight_size, Tensor weight_scale, Tensor? bias=None, "
      "bool per_row=True, bool symmetric=False, bool reduce_range=False, "
      "ScalarType? output_dtype=None, str post_ops='', float[] post_op_args=[], "
      "Tensor? other=None) -> Tensor");
  m.def(
      "_prepack_sparse_linear(Tensor weight, Tensor row_offsets, Tensor column_indices, "
      "int[] weight_size, Tensor weight_scale, Tensor? bias, ScalarType input_dtype, "
      "float input_scale, int input_zero_point, float output_scale, int output_zero_point, "
      "ScalarType? output_dtype=None, str post_ops='', float[] post_op_args=[]) -> ()");
  m.def(
      "_prepack_sparse_linear_dynamic(Tensor weight, Tensor row_offsets, Tensor column_indices, "
      "int[] weight_size, Tensor weight_scale, Tensor? bias=None, ScalarType? input_dtype=None, "
      "bool per_row=True, bool symmetric=False, bool reduce_range=False, "
      "ScalarType? output_dtype=None, str post_ops='', float[] post_op_args=[]) -> ()");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("sparse_linear", TORCH_FN(sparse_linear));
  m.impl("sparse_linear_dynamic", TORCH_FN(sparse_linear_dynamic));
  m.impl("_prepack_sparse_linear", TORCH_FN(prepack_sparse_linear));
  m.impl("_prepack_sparse_linear_dynamic", TORCH_FN(prepack_sparse_linear_dynamic));
}

TORCH_LIBRARY_IMPL(torch_ao, Meta, m) {
  m.impl("_prepack_sparse_linear", TORCH_FN(prepack_sparse_linear_meta));
  m.impl("_prepack_sparse_linear_dynamic", TORCH_FN(prepack_sparse_linear_dynamic_meta));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("sparse_linear", TORCH_FN((InferenceOnly<"sparse_linear", sparse_linear>::call)));
  m.impl("sparse_linear_dynamic",
         TORCH_FN((InferenceOnly<"sparse_linear_dynamic", sparse_linear_dynamic>::call)));
  m.impl("_prepack_sparse_linear",
         TORCH_FN((InferenceOnly<"_prepack_sparse_linear", prepack_sparse_linear>::call)));
  m.impl("_prepack_sparse_linear_dynamic",
         TORCH_FN((InferenceOnly<"_prepack_sparse_linear_dynamic", prepack_sparse_linear_dynamic>::call)));
}

}  // namespace tae
