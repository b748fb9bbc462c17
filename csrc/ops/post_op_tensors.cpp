#include "ops/post_op_tensors.h"

#include "core/qparams.h"
#include "ops/post_ops.h"

namespace tae {
namespace {

// A tensor that this post-op reads, and no other; returns whether it is there.
bool check_post_op_tensor(const Arg& arg, const std::optional<at::Tensor>& t, bool wanted, const char* name) {
  TAE_CHECK_VALUE(wanted || !present(t), arg, c10::str("be None without post-op '", name, "'"), "a tensor");
  if (!wanted) return false;
  TAE_CHECK_VALUE(present(t), arg, c10::str("be given with post-op '", name, "'"), "None");
  check_tensor(arg, *t, {at::kFloat});
  return true;
}

}  // namespace

void check_post_op_tensors(const char* op, std::string_view post_ops, const PostOpTensors* t, int64_t n,
                           const char* what) {
  const bool prelu = names_prelu(post_ops), affine = names_affine(post_ops);
  if (t == nullptr) {
    TAE_CHECK_VALUE(!prelu && !affine, (Arg{op, "post_ops"}),
                    c10::str("not contain '", prelu ? "prelu" : "affine", "'"), c10::str("'", post_ops, "'"));
    return;
  }
  const bool any = present(t->slope) || present(t->affine_weight) || present(t->affine_bias);
  if (!prelu && !affine && !any) return;
  const Arg slope{op, "slope"};
  if (check_post_op_tensor(slope, t->slope, prelu, "prelu")) check_per_channel(slope, *t->slope, n);
  const auto check_vector = [&](const Arg& arg, const std::optional<at::Tensor>& v) {
    if (!check_post_op_tensor(arg, v, affine, "affine")) return;
    check_rank(arg, *v, 1);
    check_size(arg, *v, 0, n, what);
  };
  check_vector({op, "affine_weight"}, t->affine_weight);
  check_vector({op, "affine_bias"}, t->affine_bias);
}

void add_post_op_tensors(StateQuery* query, std::string_view post_ops, const PostOpTensors* t) {
  // Which of them there are is in the post-ops, which are in the key.
  if (names_prelu(post_ops)) query->add(t->slope);
  if (names_affine(post_ops)) {
    query->add(t->affine_weight);
    query->add(t->affine_bias);
  }
}

void set_post_op_tensors(const char* op, std::string_view post_ops, const PostOpTensors* t,
                         PostOpValues* values, LinearProblem* p) {
  if (names_prelu(post_ops)) {
    values->slope = finite_values({op, "slope"}, *t->slope);
    if (values->slope.size() == 1) {  // the same for all columns
      for (PostOp& post_op : p->post_ops)
        if (post_op.kind == PostOp::Kind::prelu) post_op = {PostOp::Kind::leaky_relu, values->slope[0]};
    } else {
      p->slope = values->slope.data();
    }
  }
  if (names_affine(post_ops)) {
    values->affine_weight = finite_values({op, "affine_weight"}, *t->affine_weight);
    values->affine_bias = finite_values({op, "affine_bias"}, *t->affine_bias);
    p->affine_weight = values->affine_weight.data();
    p->affine_bias = values->affine_bias.data();
  }
}

at::Tensor check_other(const char* op, bool wanted, const LinearOther& other, at::IntArrayRef output_sizes,
                       bool dynamic, LinearArgs* args) {
  const Arg arg{op, "other"};
  if (!wanted) {
    TAE_CHECK_VALUE(!present(other.tensor), arg, "be None without post-op 'add'", "a tensor");
    return {};
  }
  TAE_CHECK_VALUE(present(other.tensor), arg, "be given with post-op 'add'", "None");
  const at::Tensor& t = *other.tensor;
  if (dynamic)
    check_tensor(arg, t, {at::kFloat, at::kBFloat16});
  else
    check_tensor(arg, t, {at::kFloat, at::kBFloat16, at::kByte, at::kChar});
  check_same_sizes(arg, t, output_sizes, "the output");
  args->other_dtype = dtype_of(t.scalar_type());
  const Arg scale{op, "other_scale"};
  const Arg zero_point{op, "other_zero_point"};
  if (is_quantized(args->other_dtype)) {
    args->other_scale = check_scale(scale, other.scale);
    args->other_zero_point = check_zero_point(zero_point, other.zero_point, quant_min(args->other_dtype),
                                              quant_max(args->other_dtype));
  } else {
    TAE_CHECK_VALUE(other.scale == 1.0, scale, "be 1.0 for a float tensor", other.scale);
    TAE_CHECK_VALUE(other.zero_point == 0, zero_point, "be 0 for a float tensor", other.zero_point);
  }
  return t;
}

}  // namespace tae
