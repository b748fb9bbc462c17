// y[m][n] = sum_k x[m][k] * s_w[n][k / group] * w[n][k] + bias[n], W alone quantized
//
// input [*, K] float32 or bfloat16, output [*, N] in its dtype.
//   8 bit (group_size 0):           weight [N, K] int8, weight_scale [1] or [N]
//   4 bit (group_size 32, 64, 128): weight [N, ceil(K / 2)] uint8, two values a byte, even
//     k in the low nibble, each w + 8; weight_scale [N, ceil(K / group_size)]
// Scales are float32, or bfloat16 with 4 bits. x is rounded to 8 bits of the largest value of a
// group of k, or 16 (input_bits); every rounding is in engines/weight_only.h. Layers and
// ops.linear_weight_only ask for 8; the schema keeps its default, which exported graphs leave out.
#include <bit>

#include "core/autograd.h"
#include "core/checks.h"
#include "core/env.h"
#include "core/fork.h"
#include "core/qparams.h"
#include "core/round_up.h"
#include "core/weight_state.h"
#include "ops/packed_state.h"

namespace tae {
namespace {

using at::Tensor;
using OptTensor = std::optional<at::Tensor>;

// The arguments that are baked into a packing.
struct Baked {
  const char* op;
  const Tensor& weight;
  const Tensor& weight_scale;
  const OptTensor& bias;
  int64_t in_features = 0;
  int64_t group_size = 0;
  int64_t input_bits = 16;
  DType dtype = DType::f32;

  bool packs_two() const { return group_size != 0; }
  int64_t groups() const { return ceil_div(in_features, group_size); }
};

// Dtypes, ranks and sizes; not the values. in_features is input.size(-1), or an argument.
void check_shapes(const Baked& b, bool has_input) {
  TAE_CHECK_VALUE(b.group_size == 0 || b.group_size == 32 || b.group_size == 64 || b.group_size == 128,
                  (Arg{b.op, "group_size"}), "be 0, 32, 64 or 128", b.group_size);
  TAE_CHECK_VALUE(b.input_bits == 8 || b.input_bits == 16, (Arg{b.op, "input_bits"}), "be 8 or 16",
                  b.input_bits);
  const Arg weight{b.op, "weight"};
  check_tensor(weight, b.weight, {b.packs_two() ? at::kByte : at::kChar});
  check_rank(weight, b.weight, 2);
  const int64_t bytes = b.packs_two() ? b.in_features / 2 + b.in_features % 2 : b.in_features;
  const int64_t columns = b.weight.sizes()[1];
  if (has_input) {
    TAE_CHECK_VALUE(columns == bytes, weight,
                    c10::str("have size(1) equal to ", bytes, " for input.size(-1) ", b.in_features),
                    columns);
  } else {
    TAE_CHECK_VALUE(columns == bytes, (Arg{b.op, "in_features"}),
                    c10::str("fit weight.size(1) (", columns, ")"), b.in_features);
  }
  const int64_t n = b.weight.sizes()[0];
  const Arg scale{b.op, "weight_scale"};
  if (b.packs_two()) {
    check_tensor(scale, b.weight_scale, {at::kFloat, at::kBFloat16});
    check_rank(scale, b.weight_scale, 2);
    check_size(scale, b.weight_scale, 0, n, "weight.size(0)");
    check_size(scale, b.weight_scale, 1, b.groups(), "the count of groups");
  } else {
    check_tensor(scale, b.weight_scale, {at::kFloat});
    check_per_channel(scale, b.weight_scale, n);
  }
  if (present(b.bias)) {
    const Arg bias{b.op, "bias"};
    check_tensor(bias, *b.bias, {at::kFloat});
    check_rank(bias, *b.bias, 1);
    check_size(bias, *b.bias, 0, n, "weight.size(0)");
  }
}

// The values behind a problem's pointers.
struct ProblemStorage {
  Tensor weight;
  std::vector<float> scale;
  std::vector<float> bias;
};

std::vector<float> group_scales(const Arg& arg, const Tensor& t) {
  if (t.scalar_type() == at::kFloat) return scale_values(arg, t);
  const Tensor plain = dense(arg, t);
  std::vector<float> values = make_vector<float>(arg, plain.numel());
  const Span<const uint16_t> bits = span_of<uint16_t>(arg, plain);
  for (int64_t i = 0; i < plain.numel(); ++i)
    values[i] = check_scale(arg, std::bit_cast<float>(static_cast<uint32_t>(bits[i]) << 16));
  return values;
}

// Checks every value that a packing bakes in; the shapes are checked.
WeightOnlyProblem make_problem(const Baked& b, ProblemStorage* storage) {
  WeightOnlyProblem p;
  p.n = b.weight.sizes()[0];
  p.k = b.in_features;
  p.bits = b.packs_two() ? 4 : 8;
  p.input_bits = static_cast<int>(b.input_bits);
  p.group = b.group_size;
  p.dtype = b.dtype;
  const Arg weight{b.op, "weight"};
  storage->weight = dense(weight, b.weight);
  if (p.n * p.k > 0) p.weight = bytes_of(weight, storage->weight).first(storage->weight.numel());
  storage->scale = group_scales({b.op, "weight_scale"}, b.weight_scale);
  if (!b.packs_two() && storage->scale.size() == 1) storage->scale.resize(p.n, storage->scale[0]);
  p.weight_scale = storage->scale.data();
  if (present(b.bias)) {
    storage->bias = finite_values({b.op, "bias"}, *b.bias);
    p.bias = storage->bias.data();
  }
  return p;
}

PackedState pack(const Baked& b) {
  ProblemStorage storage;
  const WeightOnlyProblem problem = make_problem(b, &storage);
  SerialAfterFork serial;
  PackedState state = packed_state(b.op, select_weight_only(problem, settings().engine.load()));
  if (settings().log_dispatch.load(std::memory_order_relaxed))
    log_line(c10::str("pack ", b.op, " weight=", b.weight.sizes(), " ", name_of(b.dtype), " engine=",
                      state.engine, " kernel='", state.description, "' bytes=", state.packed_bytes));
  return state;
}

PackedStatePtr packed(const Baked& b) {
  StateQuery query("linear_weight_only", b.weight);
  query.add(b.weight_scale);
  query.add(b.bias);
  query.add(b.in_features);
  query.add(b.group_size << 16 | b.input_bits << 8 | int64_t{static_cast<int>(b.dtype)});
  return find_or_pack(query, [&] { return pack(b); });
}

Tensor linear_weight_only(const Tensor& input, const Tensor& weight, const Tensor& weight_scale,
                          const OptTensor& bias, int64_t group_size, int64_t input_bits) {
  const char* op = "linear_weight_only";
  const Arg input_arg{op, "input"};
  check_tensor(input_arg, input, {at::kFloat, at::kBFloat16});
  check_min_rank(input_arg, input, 1);
  const int64_t k = input.sizes().back();
  const Baked b{op, weight, weight_scale, bias, k, group_size, input_bits, dtype_of(input.scalar_type())};
  check_shapes(b, true);

  c10::SmallVector<int64_t, 6> sizes(input.sizes().begin(), input.sizes().end());
  sizes.back() = weight.sizes()[0];
  const int64_t numel = check_numel(input_arg, sizes, input.element_size());
  if (numel == 0) {
    ProblemStorage storage;
    make_problem(b, &storage);  // an empty batch is no way past the checks
    return empty_output(input_arg, sizes, input.scalar_type());
  }
  const RowView rows = rows_of(input_arg, input);
  const PackedStatePtr state = packed(b);
  Tensor output = empty_output(input_arg, sizes, input.scalar_type());
  WeightOnlyArgs args;
  args.m = rows.rows;
  args.input = rows.data;
  args.input_stride = rows.stride;
  args.output = output_bytes(output).first(numel * static_cast<int64_t>(input.element_size()));
  log_run(op, args.m, k, sizes.back(), *state);
  SerialAfterFork serial;
  state->as<WeightOnlyImpl>().run(args);
  return output;
}

// Packs as the first call of `linear_weight_only` with the same arguments would.
void prepack_linear_weight_only(const Tensor& weight, const Tensor& weight_scale, const OptTensor& bias,
                                int64_t in_features, int64_t group_size, int64_t input_bits,
                                std::optional<at::ScalarType> input_dtype) {
  const char* op = "_prepack_linear_weight_only";
  const at::ScalarType dtype = input_dtype.value_or(at::kFloat);
  check_dtype({op, "input_dtype"}, dtype, {at::kFloat, at::kBFloat16});
  const Baked b{op, weight, weight_scale, bias, in_features, group_size, input_bits, dtype_of(dtype)};
  check_shapes(b, false);
  if (weight.sizes()[0] > 0) packed(b);
}

// Under a fake or meta tensor there is nothing to pack.
void prepack_linear_weight_only_meta(const Tensor&, const Tensor&, const OptTensor&, int64_t, int64_t,
                                     int64_t, std::optional<at::ScalarType>) {}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "linear_weight_only(Tensor input, Tensor weight, Tensor weight_scale, Tensor? bias=None, "
      "int group_size=0, int input_bits=16) -> Tensor");
  m.def(
      "_prepack_linear_weight_only(Tensor weight, Tensor weight_scale, Tensor? bias, int in_features, "
      "int group_size=0, int input_bits=16, ScalarType? input_dtype=None) -> ()");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("linear_weight_only", TORCH_FN(linear_weight_only));
  m.impl("_prepack_linear_weight_only", TORCH_FN(prepack_linear_weight_only));
}

TORCH_LIBRARY_IMPL(torch_ao, Meta, m) {
  m.impl("_prepack_linear_weight_only", TORCH_FN(prepack_linear_weight_only_meta));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("linear_weight_only", TORCH_FN((InferenceOnly<"linear_weight_only", linear_weight_only>::call)));
  m.impl("_prepack_linear_weight_only",
         TORCH_FN((InferenceOnly<"_prepack_linear_weight_only", prepack_linear_weight_only>::call)));
}

}  // namespace tae
