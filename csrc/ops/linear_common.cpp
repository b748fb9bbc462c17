#include "ops/linear_common.h"

#include "core/env.h"
#include "core/fork.h"
#include "core/qparams.h"
#include "core/result_memory.h"
#include "ops/packed_state.h"
#include "ops/post_ops.h"
#include "ops/sparse_weight.h"

namespace tae {
namespace {

int64_t rows_of_weight(const LinearBaked& b) { return b.sparse ? b.sparse->n : b.weight.sizes()[0]; }
int64_t columns_of_weight(const LinearBaked& b) { return b.sparse ? b.sparse->k : b.weight.sizes()[1]; }
const char* rows_name(const LinearBaked& b) { return b.sparse ? "weight_size[0]" : "weight.size(0)"; }
const char* columns_name(const LinearBaked& b) { return b.sparse ? "weight_size[1]" : "weight.size(1)"; }

}  // namespace

LinearProblem make_problem(const LinearBaked& b, int64_t n, int64_t k, ProblemStorage* storage) {
  LinearProblem p;
  p.n = n;
  p.k = k;
  p.dynamic = b.dynamic;
  p.dynamic_quant = b.dynamic_quant;
  p.input_dtype = b.input_dtype;
  p.output_dtype = b.output_dtype;
  p.input_scale = b.input_scale;
  p.input_zero_point = b.input_zero_point;
  p.output_scale = b.output_scale;
  p.output_zero_point = b.output_zero_point;
  p.post_ops = parse_post_ops(b.op, b.post_ops, b.post_op_args);

  const Arg weight{b.op, "weight"};
  if (b.sparse != nullptr) {
    storage->sparse = check_sparse_weight(b.op, b.weight, *b.sparse);
    p.weight = storage->sparse.dense.data();
    p.sparse = &storage->sparse.blocks;
  } else {
    storage->weight = dense(weight, b.weight);
    p.weight = span_of<int8_t>(weight, storage->weight).first(p.n * p.k);
  }
  storage->scale = scale_values({b.op, "weight_scale"}, b.weight_scale);
  p.weight_scale = storage->scale.data();
  p.weight_scale_size = static_cast<int64_t>(storage->scale.size());
  if (present(b.bias)) storage->bias = finite_values({b.op, "bias"}, *b.bias);
  if (b.bn != nullptr) {
    fold_batch_norm(b.op, *b.bn, n, &storage->scale, &storage->bias);
    p.weight_scale = storage->scale.data();
    p.weight_scale_size = n;
  }
  if (present(b.weight_zero_point)) {
    storage->zero_point = zero_point_values({b.op, "weight_zero_point"}, *b.weight_zero_point, -128, 127);
    // All zero is the same problem as none, and every engine has a faster way for it.
    bool any = false;
    for (int32_t z : storage->zero_point) any = any || z != 0;
    if (any && p.n > 0) {  // of no columns there may be no first scale to repeat
      if (storage->zero_point.size() < storage->scale.size())
        storage->zero_point.resize(storage->scale.size(), storage->zero_point[0]);
      if (storage->scale.size() < storage->zero_point.size()) {
        storage->scale.resize(storage->zero_point.size(), storage->scale[0]);
        p.weight_scale = storage->scale.data();
        p.weight_scale_size = static_cast<int64_t>(storage->scale.size());
      }
      p.weight_zero_point = storage->zero_point.data();
    }
  }
  if (present(b.bias) || b.bn != nullptr) p.bias = storage->bias.data();
  set_post_op_tensors(b.op, b.post_ops, b.post_op_tensors, &storage->post_op_values, &p);
  return p;
}

void log_packing(const LinearBaked& b, const PackedState& s) {
  std::string text = c10::str("pack ", b.op, " weight=", b.weight.sizes(), " ", name_of(b.input_dtype), "->",
                              name_of(b.output_dtype), " post_ops='", b.post_ops, "' engine=", s.engine,
                              " kernel='", s.description, "' bytes=", s.packed_bytes);
  for (const auto& [engine, reason] : s.refused) text += "; " + engine + " refused: " + reason;
  log_line(text);
}

namespace {

// A sparse weight claims a size that no tensor of the call has: what an engine cannot
// hold of it is the caller's mistake.
Selection select(const LinearBaked& b, const LinearProblem& problem) {
  const Settings& s = settings();
  try {
    return select_linear(problem, s.engine.load(), s.deterministic.load());
  } catch (const std::bad_alloc&) {
    if (b.sparse == nullptr) throw;
  }
  raise_out_of_memory({b.op, "weight_size"}, {problem.n, problem.k});
}

PackedState pack(const LinearBaked& b) {
  ProblemStorage storage;
  const LinearProblem problem = make_problem(b, rows_of_weight(b), columns_of_weight(b), &storage);
  SerialAfterFork serial;
  PackedState state = packed_state(b.op, select(b, problem));
  if (settings().log_dispatch.load(std::memory_order_relaxed)) log_packing(b, state);
  return state;
}

void run_engine(const LinearBaked& b, const PackedState& state, const LinearArgs& args) {
  SerialAfterFork serial;
  try {
    state.as<LinearImpl>().run(args);
  } catch (const std::runtime_error& e) {  // not bad_alloc: that one says enough
    TORCH_CHECK(false, "torch_ao::", b.op, ": engine ", state.engine, " failed: ", e.what());
  }
}

}  // namespace

void bake_static_qparams(LinearBaked* b, double input_scale, int64_t input_zero_point, double output_scale,
                         int64_t output_zero_point) {
  b->input_scale = check_scale({b->op, "input_scale"}, input_scale);
  b->input_zero_point = check_zero_point({b->op, "input_zero_point"}, input_zero_point,
                                         quant_min(b->input_dtype), quant_max(b->input_dtype));
  const OutputQParams output = check_output_qparams(b->op, b->output_dtype, output_scale, output_zero_point);
  b->output_scale = output.scale;
  b->output_zero_point = output.zero_point;
}

LinearBaked bake_arguments(const char* op, const StaticArgs& a, std::string_view post_ops,
                           at::ArrayRef<double> post_op_args) {
  check_tensor({op, "input"}, a.input, {at::kByte, at::kChar});
  const at::ScalarType output_dtype = a.output_dtype.value_or(a.input.scalar_type());
  check_dtype({op, "output_dtype"}, output_dtype, {at::kByte, at::kChar, at::kFloat, at::kBFloat16});
  LinearBaked baked{op, a.weight, a.weight_scale, a.weight_zero_point, a.bias};
  baked.input_dtype = dtype_of(a.input.scalar_type());
  baked.output_dtype = dtype_of(output_dtype);
  baked.post_ops = post_ops;
  baked.post_op_args = post_op_args;
  bake_static_qparams(&baked, a.input_scale, a.input_zero_point, a.output_scale, a.output_zero_point);
  return baked;
}

void check_linear_weights(const LinearBaked& b) {
  check_tensor({b.op, "weight"}, b.weight, {at::kChar});
  if (b.sparse != nullptr)
    check_sparse_shapes(b.op, b.weight, *b.sparse);
  else
    check_rank({b.op, "weight"}, b.weight, 2);
  check_columns(b, rows_of_weight(b), rows_name(b));
}

void check_columns(const LinearBaked& b, int64_t n, const char* what) {
  const Arg scale{b.op, "weight_scale"};
  check_tensor(scale, b.weight_scale, {at::kFloat});
  check_per_channel(scale, b.weight_scale, n);
  if (present(b.weight_zero_point)) {
    const Arg zero_point{b.op, "weight_zero_point"};
    check_tensor(zero_point, *b.weight_zero_point, {at::kInt, at::kLong});
    check_per_channel(zero_point, *b.weight_zero_point, n);
  }
  if (present(b.bias)) {
    const Arg bias{b.op, "bias"};
    check_tensor(bias, *b.bias, {at::kFloat});
    check_rank(bias, *b.bias, 1);
    check_size(bias, *b.bias, 0, n, what);
  }
  if (b.bn != nullptr) check_batch_norm(b.op, *b.bn, n, what);
  check_post_op_tensors(b.op, b.post_ops, b.post_op_tensors, n, what);
}

void add_columns(StateQuery* query, const LinearBaked& b) {
  query->add(b.weight_scale);
  query->add(b.weight_zero_point);
  query->add(b.bias);
  if (b.bn == nullptr) {
    add_post_op_tensors(query, b.post_ops, b.post_op_tensors);
    return;
  }
  query->add(b.bn->running_mean);
  query->add(b.bn->running_var);
  query->add(b.bn->bn_weight);
  query->add(b.bn->bn_bias);
  query->add(static_cast<float>(b.bn->eps));
}

PackedStatePtr packed_linear(const LinearBaked& b) {
  const char* kinds[2][2] = {{"linear", "linear_dynamic"}, {"sparse_linear", "sparse_linear_dynamic"}};
  StateQuery query(b.bn != nullptr ? "linear_bn" : kinds[b.sparse != nullptr][b.dynamic], b.weight);
  if (b.sparse != nullptr) {
    query.add(b.sparse->row_offsets);
    query.add(b.sparse->column_indices);
    query.add(b.sparse->n);
    query.add(b.sparse->k);
  }
  add_columns(&query, b);
  const DynamicQuant& d = b.dynamic_quant;
  query.add(int64_t{static_cast<int>(b.input_dtype)} | int64_t{static_cast<int>(b.output_dtype)} << 8 |
            int64_t{d.per_row} << 16 | int64_t{d.symmetric} << 17 | int64_t{d.reduce_range} << 18);
  if (!b.dynamic) {
    query.add(b.input_scale);
    query.add(int64_t{b.input_zero_point});
    query.add(b.output_scale);
    query.add(int64_t{b.output_zero_point});
  }
  query.set_post_ops(b.post_ops, b.post_op_args);
  return find_or_pack(query, [&] { return pack(b); });
}

at::Tensor run_linear(const LinearBaked& b, const at::Tensor& input, const LinearOther& other) {
  check_linear_weights(b);
  const Arg input_arg{b.op, "input"};
  check_min_rank(input_arg, input, 1);
  const int64_t n = rows_of_weight(b);
  const int64_t k = columns_of_weight(b);
  check_size(input_arg, input, -1, k, columns_name(b));

  c10::SmallVector<int64_t, 6> sizes(input.sizes().begin(), input.sizes().end());
  sizes.back() = n;
  const at::ScalarType dtype = scalar_type_of(b.output_dtype);
  const int64_t numel = check_numel(input_arg, sizes, c10::elementSize(dtype));

  LinearArgs args;
  at::Tensor added = check_other(b.op, names_add(b.post_ops), other, sizes, b.dynamic, &args);
  if (added.defined()) added = dense({b.op, "other"}, added);
  if (numel == 0) {
    ProblemStorage storage;
    make_problem(b, n, k, &storage);  // an empty batch is no way past the checks
    return empty_output(input_arg, sizes, dtype);
  }
  const RowView rows = rows_of(input_arg, input);
  const PackedStatePtr state = packed_linear(b);

  // The epilogue reads `other` where it then writes; input rows are read all the time.
  const bool apart = added.defined() && !added.is_alias_of(input);
  const at::Tensor output = [&] {
    const MayOverwrite overwrites(apart ? added : at::Tensor());
    return empty_output(input_arg, sizes, dtype);
  }();
  args.m = rows.rows;
  args.input = rows.data;
  args.input_stride = rows.stride;
  args.output = output_bytes(output).first(numel * c10::elementSize(dtype));
  if (added.defined()) args.other = bytes_of({b.op, "other"}, added).first(numel * added.element_size());
  log_run(b.op, args.m, k, n, *state);
  run_engine(b, *state, args);
  return output;
}

}  // namespace tae
