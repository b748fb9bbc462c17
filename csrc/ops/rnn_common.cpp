#include "ops/rnn_common.h"

#include "core/env.h"
#include "core/fork.h"
#include "ops/rnn_pack.h"

namespace tae {
namespace {

using at::Tensor;
using OptTensor = std::optional<at::Tensor>;

constexpr std::initializer_list<at::ScalarType> kWeightDtypes = {at::kChar, at::kShort, at::kBFloat16};
constexpr std::initializer_list<at::ScalarType> kTensorRuleDtypes = {at::kChar};

// Weight i of a cell and its scale.
void check_matrix(const RnnCell& cell, int64_t i, int64_t rows, int64_t columns) {
  const Tensor& weight = cell.weight(i);
  const Arg arg = cell.weight_arg(i);
  const at::ScalarType dtype = cell.w.weights[0].scalar_type();
  const bool mixed = dtype != at::kBFloat16 && weight.scalar_type() != at::kBFloat16;
  TAE_CHECK_TYPE(
      mixed || weight.scalar_type() == dtype, arg,
      c10::str("have the dtype of the first weight (", dtype_name(dtype), "; int8 and int16 may be mixed)"),
      dtype_name(weight.scalar_type()));
  TAE_CHECK_VALUE(weight.dim() == 2 && weight.size(0) == rows && weight.size(1) == columns, arg,
                  c10::str("have sizes [", rows, ", ", columns, "] at this place"),
                  c10::str("sizes ", weight.sizes()));
  TAE_CHECK_VALUE(columns >= 1 && columns <= kMaxRnnK, arg, c10::str("have size(1) in [1, ", kMaxRnnK, "]"),
                  columns);
  check_tensor(cell.scale_arg(i), cell.scale(i), {at::kFloat});
  check_per_channel(cell.scale_arg(i), cell.scale(i), rows);
}

// Steps of a packed sequence: descending counts of active rows.
struct Steps {
  std::vector<int64_t> sizes;
  std::vector<int64_t> offsets;
};

Steps read_batch_sizes(const RnnWeights& w, const Tensor& batch_sizes, int64_t rows) {
  const Arg arg{w.op, "batch_sizes"};
  check_tensor(arg, batch_sizes, {at::kLong});
  check_rank(arg, batch_sizes, 1);
  const Tensor plain = dense(arg, batch_sizes);
  Steps s;
  s.sizes = make_vector<int64_t>(arg, plain.numel());
  s.offsets = make_vector<int64_t>(arg, plain.numel() + 1);
  const Span<const int64_t> values = span_of<int64_t>(arg, plain);
  for (int64_t i = 0; i < plain.numel(); ++i) {
    const int64_t most = i == 0 ? rows : s.sizes[i - 1];
    TAE_CHECK_VALUE(values[i] >= 1 && values[i] <= most, arg,
                    "hold positive counts that do not grow and that sum to input.size(0)", values[i]);
    TAE_CHECK_VALUE(values[i] <= rows - s.offsets[i], arg, c10::str("sum to input.size(0) (", rows, ")"),
                    c10::str(s.offsets[i], " + ", values[i]));
    s.sizes[i] = values[i];
    s.offsets[i + 1] = s.offsets[i] + values[i];
  }
  TAE_CHECK_VALUE(s.offsets.back() == rows, arg, c10::str("sum to input.size(0) (", rows, ")"),
                  s.offsets.back());
  return s;
}

// The state as dense float32, or undefined when absent.
Tensor initial_state(const Arg& arg, const OptTensor& state, at::IntArrayRef sizes) {
  if (!present(state)) return {};
  check_tensor(arg, *state, {at::kFloat, at::kBFloat16});
  check_same_sizes(arg, *state, sizes, "the state");
  if (state->numel() == 0) return {};
  const Tensor plain = dense(arg, *state);
  check_storage(arg, plain);
  if (plain.scalar_type() == at::kFloat) return plain;
  return allocate(arg, plain.sizes(), [&] { return plain.to(at::kFloat); });
}

const float* floats(const Tensor& t, int64_t offset) {
  return t.defined() ? static_cast<const float*>(t.const_data_ptr()) + offset : nullptr;
}

// An empty tensor has no address to count from.
float* floats_of(const Tensor& t, int64_t offset) {
  return t.numel() == 0 ? nullptr : static_cast<float*>(t.mutable_data_ptr()) + offset;
}

Tensor as_dtype(const Arg& arg, const Tensor& t, at::ScalarType dtype) {
  if (!t.defined() || t.scalar_type() == dtype) return t;
  return allocate(arg, t.sizes(), [&] { return t.to(dtype); });
}

// One layer: both directions together when one engine has both.
void run_layer(const RnnWeights& w, const RnnArgs& args, const std::vector<PackedStatePtr>& states,
               std::vector<RnnDirection>* directions) {
  SerialAfterFork serial;
  const bool together = directions->size() == 2 && states[0]->engine == states[1]->engine;
  for (size_t i = 0; i < directions->size(); ++i) (*directions)[i].impl = &states[i]->as<RnnImpl>();
  if (settings().log_dispatch.load(std::memory_order_relaxed))
    log_line(c10::str("run ", w.op, " steps=", args.steps, " batch=", args.batch,
                      " engine=", states[0]->engine, " kernel='", states[0]->description, "'"));
  if (together) {
    (*directions)[0].impl->run(args, directions->data(), 2);
  } else {
    for (const RnnDirection& d : *directions) d.impl->run(args, &d, 1);
  }
}

}  // namespace

RnnKind rnn_kind_of(const char* op, std::string_view nonlinearity) {
  TAE_CHECK_VALUE(nonlinearity == "tanh" || nonlinearity == "relu", (Arg{op, "nonlinearity"}),
                  "be 'tanh' or 'relu'", c10::str("'", nonlinearity, "'"));
  return nonlinearity == "tanh" ? RnnKind::rnn_tanh : RnnKind::rnn_relu;
}

void check_rnn_weights(const RnnWeights& w) {
  const Arg layers{w.op, "num_layers"}, weights{w.op, w.names.weights[0]};
  TAE_CHECK_VALUE(w.num_layers >= 1 && w.num_layers <= 1 << 20, layers, "be in [1, 1048576]", w.num_layers);
  const int64_t count = static_cast<int64_t>(w.weights.size());
  const bool may_project = w.kind == RnnKind::lstm;
  TAE_CHECK_VALUE(count == 2 * w.cells() || (may_project && count == 3 * w.cells()), weights,
                  c10::str("have ", 2 * w.cells(),
                           may_project ? c10::str(" or ", 3 * w.cells()) : std::string(), " tensors"),
                  count);
  TAE_CHECK_VALUE(w.scales.size() == w.weights.size(), (Arg{w.op, "weight_scales"}),
                  c10::str("have as many tensors as weights (", count, ")"), w.scales.size());
  const int64_t biases = static_cast<int64_t>(w.biases.size());
  TAE_CHECK_VALUE(biases == 0 || biases == 2 * w.cells(), (Arg{w.op, "biases"}),
                  c10::str("have 0 or ", 2 * w.cells(), " tensors"), biases);
  TAE_CHECK_VALUE(!w.rule.reduce_range || !w.rule.per_row, (Arg{w.op, "reduce_range"}),
                  "be False with per_row", "True");
  for (int64_t i = 0; i < count; ++i) {
    const Arg arg{w.op, w.names.weights[i % w.weights_per_cell()]};
    check_tensor(arg, w.weights[i], w.rule.per_row ? kWeightDtypes : kTensorRuleDtypes);
    check_rank(arg, w.weights[i], 2);
  }
  const int64_t gates = gates_of(w.kind);
  const int64_t rows = w.weights[0].size(0);
  TAE_CHECK_VALUE(rows >= gates && rows % gates == 0, weights,
                  c10::str("have size(0) divisible by ", gates, " and above 0"), rows);
  const int64_t output = w.projected() ? w.output() : w.hidden();
  for (int64_t i = 0; i < w.cells(); ++i) {
    const RnnCell cell{w, i};
    const bool first = i < w.directions();
    check_matrix(cell, 0, rows, first ? w.weights[0].size(1) : output * w.directions());
    check_matrix(cell, 1, rows, output);
    if (w.projected()) check_matrix(cell, 2, output, w.hidden());
    for (int64_t b = 0; cell.biased() && b < 2; ++b) {
      const Arg bias = cell.bias_arg(b);
      check_tensor(bias, cell.bias(b), {at::kFloat});
      check_rank(bias, cell.bias(b), 1);
      check_size(bias, cell.bias(b), 0, rows, w.names.rows);
    }
  }
}

void prepack_rnn(const RnnWeights& w, at::ScalarType input_dtype) {
  check_rnn_weights(w);
  for (int64_t i = 0; i < w.cells(); ++i)
    packed(RnnCell{w, i}, i < w.directions() ? dtype_of(input_dtype) : DType::f32);
}

RnnResult run_rnn(const RnnWeights& w, const Tensor& input, const OptTensor& batch_sizes, const OptTensor& h0,
                  const OptTensor& c0) {
  check_rnn_weights(w);
  const Arg arg{w.op, "input"};
  check_tensor(arg, input, {at::kFloat, at::kBFloat16});
  const bool is_packed = present(batch_sizes);
  check_rank(arg, input, is_packed || w.one_step ? 2 : 3);
  check_size(arg, input, -1, w.weights[0].size(1), w.names.columns);

  RnnArgs args;
  Steps steps;
  if (is_packed) {
    steps = read_batch_sizes(w, *batch_sizes, input.size(0));
    args.steps = static_cast<int64_t>(steps.sizes.size());
    args.batch = args.steps == 0 ? 0 : steps.sizes[0];
    args.batch_sizes = steps.sizes.data();
    args.row_offsets = steps.offsets.data();
  } else if (w.one_step) {
    args.steps = 1;
    args.batch = input.size(0);
  } else {
    args.steps = input.size(0);
    args.batch = input.size(1);
  }
  const int64_t hidden = w.hidden(), output = w.output(), width = output * w.directions();
  const bool has_c = w.kind == RnnKind::lstm;
  c10::SmallVector<int64_t, 3> sizes(input.sizes().begin(), input.sizes().end());
  sizes.back() = width;
  const int64_t h_sizes[] = {w.cells(), args.batch, output};
  const int64_t c_sizes[] = {w.cells(), args.batch, hidden};
  const auto given = [&w](at::IntArrayRef sizes) { return w.one_step ? sizes.slice(1) : sizes; };
  const Tensor first_h = initial_state({w.op, w.names.h}, h0, given(h_sizes));
  const Tensor first_c = initial_state({w.op, w.names.c}, c0, given(c_sizes));
  const at::ScalarType dtype = input.scalar_type();
  check_numel(arg, sizes, 4);
  check_numel(arg, h_sizes, 4);
  check_numel(arg, c_sizes, 4);
  RnnResult result;
  result.h = empty_output(arg, h_sizes, at::kFloat);
  if (has_c) result.c = empty_output(arg, c_sizes, at::kFloat);
  result.y = empty_output(arg, sizes, at::kFloat);

  const int64_t rows = input.numel() / input.size(-1);
  Tensor x = dense(arg, input);
  if (rows > 0) check_storage(arg, x);
  for (int64_t layer = 0; layer < w.num_layers; ++layer) {
    const bool last = layer + 1 == w.num_layers;
    const Tensor y = last ? result.y : empty_output(arg, sizes, at::kFloat);
    std::vector<PackedStatePtr> states;
    std::vector<RnnDirection> directions;
    for (int64_t d = 0; d < w.directions(); ++d) {
      const int64_t i = layer * w.directions() + d;
      states.push_back(packed(RnnCell{w, i}, layer == 0 ? dtype_of(dtype) : DType::f32));
      RnnDirection direction;
      direction.reverse = d == 1;
      direction.h0 = floats(first_h, i * args.batch * output);
      direction.c0 = floats(first_c, i * args.batch * hidden);
      direction.h = floats_of(result.h, i * args.batch * output);
      if (has_c) direction.c = floats_of(result.c, i * args.batch * hidden);
      direction.y = floats_of(y, d * output);
      directions.push_back(direction);
    }
    args.x = x.const_data_ptr();
    args.y_stride = width;
    if (args.batch > 0) {
      try {
        run_layer(w, args, states, &directions);
      } catch (const std::bad_alloc&) {
        raise_out_of_memory(arg, sizes);
      }
    }
    x = y;
  }
  result.y = as_dtype(arg, result.y, dtype);
  result.h = as_dtype(arg, result.h, dtype);
  result.c = as_dtype(arg, result.c, dtype);
  return result;
}

}  // namespace tae
