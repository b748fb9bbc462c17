// attention: y = quantize(softmax(q @ k^T * scale + attn_mask) @ v), q, k and v of 8 bits
//
// query [*, L, E], key [*, S, E], value [*, S, V] with the same leading sizes, any strides; the output
// [*, L, V] is contiguous. A bool mask is true where a query sees a key. Rounding in
// engines/attention.h: the weights are integers of a scale for each row, so that none is lost
// beside a large one of another row. Float outputs leave the quantize out.
//
// Vaswani et al., arXiv:1706.03762, equation 1; a few rows of scores at a time as in Dao et al.,
// arXiv:2205.14135.
#include "engines/attention.h"

#include <cmath>
#include <limits>

#include "core/autograd.h"
#include "kernels/vec_float_env.h"
#include "ops/matmul_common.h"
#include "ops/matrix_offsets.h"

namespace tae {
namespace {

using at::Tensor;
using OptDtype = std::optional<at::ScalarType>;
using OptTensor = std::optional<Tensor>;
using Offsets = std::vector<int64_t>;

constexpr const char* kOp = "attention";

// Leading sizes are those of `like`, the operand `what`.
void check_like(const Arg& arg, const Tensor& t, const Tensor& like, const char* what) {
  bool fits = t.dim() == like.dim();
  for (int64_t d = 0; fits && d < t.dim() - 2; ++d) fits = t.size(d) == like.size(d);
  TAE_CHECK_VALUE(fits, arg, c10::str("have ", what, "'s leading sizes, those of ", like.sizes()),
                  c10::str("sizes ", t.sizes()));
}

void check_sizes(const Tensor& query, const Tensor& key, const Tensor& value) {
  check_min_rank({kOp, "query"}, query, 2);
  const Arg key_arg{kOp, "key"}, value_arg{kOp, "value"};
  check_like(key_arg, key, query, "query");
  check_like(value_arg, value, query, "query");
  check_size(key_arg, key, key.dim() - 1, query.size(-1), "query.size(-1)");
  check_size(value_arg, value, value.dim() - 2, key.size(-2), "key.size(-2)");
  check_sum_length({kOp, "query"}, "size(-1)", query.size(-1));
  check_sum_length(key_arg, "size(-2)", key.size(-2));
}

at::IntArrayRef leading_sizes(const Tensor& t) { return t.sizes().slice(0, t.sizes().size() - 2); }

// float32 [*, L or 1, S], its last dimension along the memory.
struct Mask {
  Tensor owner;
  Offsets offsets;
  const float* data = nullptr;
  int64_t row_stride = 0;
};

// 0 where a query sees a key, -inf elsewhere.
Tensor as_added(const Arg& arg, const Tensor& mask) {
  const Tensor seen = dense(arg, mask);
  const Tensor added = empty_output(arg, mask.sizes(), at::kFloat);
  const bool* from = static_cast<const bool*>(seen.const_data_ptr());
  float* to = static_cast<float*>(added.mutable_data_ptr());
  parallel_for(mask.numel(), kElementGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = from[i] ? 0.f : -std::numeric_limits<float>::infinity();
  });
  return added;
}

Mask check_mask(const OptTensor& mask, at::IntArrayRef scores, int64_t batch, bool empty) {
  Mask result;
  if (!present(mask)) return result;
  const Arg arg{kOp, "attn_mask"};
  check_tensor(arg, *mask, {at::kFloat, at::kBool});
  TAE_CHECK_VALUE(expands(mask->sizes(), scores), arg,
                  c10::str("have sizes that expand to those of the scores, ", scores),
                  c10::str("sizes ", mask->sizes()));
  if (empty) return result;
  check_storage(arg, *mask);
  const Tensor added = mask->scalar_type() == at::kBool ? as_added(arg, *mask) : *mask;
  Tensor t = (is_aligned(added) ? added : dense(arg, added)).expand(scores);
  if (t.size(-1) > 1 && t.stride(-1) != 1) {
    SerialAfterFork serial;  // the copy is torch's and may be parallel
    t = allocate(arg, t.sizes(), [&] { return t.contiguous(); });
  }
  result.offsets = matrix_offsets(arg, t, leading_sizes(t), batch);
  result.data = static_cast<const float*>(t.const_data_ptr());
  result.row_stride = t.stride(-2);
  result.owner = std::move(t);
  return result;
}

// s_q * s_k * scale, in f64 and then f32.
[[gnu::noinline]] float score_scale(double query, double key, double scale) {
  return static_cast<float>(query * key * scale);
}

[[gnu::noinline]] float check_score_scale(const kernels::Operand& q, const kernels::Operand& k, int64_t width,
                                          std::optional<double> scale) {
  const Arg arg{kOp, "scale"};
  double given = 1. / std::sqrt(static_cast<double>(std::max<int64_t>(1, width)));
  if (scale.has_value()) given = static_cast<double>(check_scale(arg, *scale));
  const float product = score_scale(static_cast<double>(q.scale), static_cast<double>(k.scale), given);
  TAE_CHECK_VALUE(std::isfinite(product), arg, "have a finite float32 product with query_scale and key_scale",
                  given);
  return product;
}

Tensor attention(const Tensor& query, double query_scale, int64_t query_zero_point, const Tensor& key,
                 double key_scale, int64_t key_zero_point, const Tensor& value, double value_scale,
                 int64_t value_zero_point, double output_scale, int64_t output_zero_point,
                 OptDtype output_dtype, const OptTensor& attn_mask, bool is_causal,
                 std::optional<double> scale) {
  const Arg query_arg{kOp, "query"}, key_arg{kOp, "key"}, value_arg{kOp, "value"};
  const kernels::Operand q = check_operand(query_arg, {kOp, "query_scale"}, {kOp, "query_zero_point"}, query,
                                           query_scale, query_zero_point);
  const kernels::Operand k =
      check_operand(key_arg, {kOp, "key_scale"}, {kOp, "key_zero_point"}, key, key_scale, key_zero_point);
  const kernels::Operand v = check_operand(value_arg, {kOp, "value_scale"}, {kOp, "value_zero_point"}, value,
                                           value_scale, value_zero_point);
  OutputFinish out;
  check_output(kOp, query.scalar_type(), output_scale, output_zero_point, output_dtype, "", {}, &out);
  check_sizes(query, key, value);
  const kernels::DefaultFloatEnv env;
  AttentionProblem p;
  p.queries = query.size(-2);
  p.keys = key.size(-2);
  p.width = query.size(-1);
  p.value_width = value.size(-1);
  p.scale = check_score_scale(q, k, p.width, scale);
  p.causal = is_causal;
  p.finish = out.finish;
  std::vector<int64_t> sizes = query.sizes().vec();
  sizes.back() = p.value_width;
  const int64_t numel = check_numel(query_arg, sizes, c10::elementSize(out.dtype));
  std::vector<int64_t> scores = query.sizes().vec();
  scores.back() = p.keys;
  p.batch = numel == 0 ? 0 : numel / (p.queries * p.value_width);
  const Mask masks = check_mask(attn_mask, scores, p.batch, numel == 0 || p.keys == 0);
  const Tensor output = empty_output(query_arg, sizes, out.dtype);
  if (numel == 0) return output;
  const auto matrices = [&](const Arg& arg, const kernels::Operand& checked, const Tensor& t) {
    check_storage(arg, t);
    return matrix_operand(arg, checked, t, false, leading_sizes(t), p.batch);
  };
  const MatrixOperand from_q = matrices(query_arg, q, query), from_k = matrices(key_arg, k, key),
                      from_v = matrices(value_arg, v, value);
  p.q = from_q.data;
  p.k = from_k.data;
  p.v = from_v.data;
  p.mask = masks.data;
  p.mask_offset = masks.offsets.data();
  p.mask_row_stride = masks.row_stride;
  p.output = output.mutable_data_ptr();
  run_engine(query_arg, query.sizes(), p, select_attention);
  return output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "attention(Tensor query, float query_scale, int query_zero_point, Tensor key, float key_scale, "
      "int key_zero_point, Tensor value, float value_scale, int value_zero_point, float output_scale=1., "
      "int output_zero_point=0, ScalarType? output_dtype=None, Tensor? attn_mask=None, bool is_causal=False, "
      "float? scale=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) { m.impl("attention", TORCH_FN(attention)); }

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("attention", TORCH_FN((InferenceOnly<"attention", attention>::call)));
}

}  // namespace tae
