#include "ops/conv_common.h"

#include <stdexcept>

#include "core/env.h"
#include "core/fork.h"
#include "core/parallel.h"
#include "core/result_memory.h"
#include "ops/channels_last.h"
#include "ops/conv_input.h"
#include "ops/packed_state.h"
#include "ops/post_ops.h"

namespace tae {
namespace {

constexpr int64_t kMostPositions = int64_t{1} << 60;  // of one axis: sums of a few do not overflow

void check_numbers(const char* op, const char* name, at::IntArrayRef values, int rank, int64_t least) {
  const Arg arg{op, name};
  TAE_CHECK_VALUE(static_cast<int>(values.size()) == rank, arg, c10::str("have ", rank, " values"), values);
  for (int64_t v : values)
    TAE_CHECK_VALUE(v >= least && v < (int64_t{1} << 31), arg, c10::str("hold values in [", least, ", 2^31)"),
                    v);
}

// Checks and spreads over 3 axes.
ConvGeometry make_geometry(const LinearBaked& b, const ConvNumbers& c, int64_t* n) {
  const Arg weight{b.op, "weight"};
  check_tensor(weight, b.weight, {at::kChar});
  check_rank(weight, b.weight, c.rank + 2);
  check_numbers(b.op, "stride", c.stride, c.rank, 1);
  check_numbers(b.op, "padding", c.padding, c.rank, 0);
  check_numbers(b.op, "dilation", c.dilation, c.rank, 1);
  if (c.transposed) {
    check_numbers(b.op, "output_padding", c.output_padding, c.rank, 0);
    for (int i = 0; i < c.rank; ++i)
      TAE_CHECK_VALUE(c.output_padding[i] < std::max(c.stride[i], c.dilation[i]),
                      (Arg{b.op, "output_padding"}), "be smaller than stride or dilation", c.output_padding);
  }
  TAE_CHECK_VALUE(c.groups >= 1, (Arg{b.op, "groups"}), "be at least 1", c.groups);
  const at::IntArrayRef sizes = b.weight.sizes();
  for (int64_t s : sizes)
    TAE_CHECK_VALUE(s >= 1, weight, "have no dimension of size 0", c10::str("sizes ", sizes));
  TAE_CHECK_VALUE(sizes[0] % c.groups == 0, (Arg{b.op, "groups"}),
                  c10::str("divide weight.size(0) (", sizes[0], ")"), c.groups);
  ConvGeometry g;
  g.transposed = c.transposed;
  g.groups = c.groups;
  g.in_channels = c.transposed ? sizes[0] : sizes[1] * c.groups;
  *n = c.transposed ? sizes[1] * c.groups : sizes[0];
  for (int i = 0; i < c.rank; ++i) {
    const int axis = 3 - c.rank + i;
    g.kernel[axis] = sizes[2 + i];
    g.stride[axis] = c.stride[i];
    g.padding[axis] = c.padding[i];
    g.dilation[axis] = c.dilation[i];
  }
  return g;
}

// Sizes of the output and, spread over 3 axes, of both sides.
Sizes output_sizes(const LinearBaked& b, const ConvNumbers& c, const ConvGeometry& g, const at::Tensor& input,
                   int64_t n, ConvArgs* args) {
  const Arg arg{b.op, "input"};
  check_rank(arg, input, c.rank + 2);
  check_size(arg, input, 1, g.in_channels, c.transposed ? "weight.size(0)" : "weight.size(1) * groups");
  Sizes sizes{input.size(0), n};
  args->batch = input.size(0);
  for (int i = 0; i < c.rank; ++i) {
    const int axis = 3 - c.rank + i;
    const int64_t in = input.size(2 + i);
    int64_t reach;
    const bool far = __builtin_mul_overflow(g.kernel[axis] - 1, g.dilation[axis], &reach);
    TAE_CHECK_VALUE(!far && reach < kMostPositions, (Arg{b.op, "dilation"}),
                    "give a dilated kernel of at most 2^60 in each dimension", g.dilation[axis]);
    TAE_CHECK_VALUE(in >= 1, arg, "have no spatial dimension of size 0", c10::str("sizes ", input.sizes()));
    TAE_CHECK_VALUE(in <= kMostPositions, arg, "have at most 2^60 in each spatial dimension",
                    c10::str("sizes ", input.sizes()));
    int64_t out;
    if (c.transposed) {
      int64_t steps;
      const bool overflow = __builtin_mul_overflow(in - 1, g.stride[axis], &steps);
      TAE_CHECK_VALUE(!overflow && steps < kMostPositions, arg,
                      "give an output of at most 2^60 in each dimension", c10::str("sizes ", input.sizes()));
      out = steps - 2 * g.padding[axis] + reach + c.output_padding[i] + 1;
      TAE_CHECK_VALUE(out >= 1, arg, "give an output of at least 1 in each dimension",
                      c10::str("sizes ", input.sizes()));
    } else {
      const int64_t room = in + 2 * g.padding[axis] - reach - 1;
      TAE_CHECK_VALUE(room >= 0, arg, "be, with padding, at least as large as the dilated kernel",
                      c10::str("sizes ", input.sizes()));
      out = room / g.stride[axis] + 1;
    }
    args->input_size[axis] = in;
    args->output_size[axis] = out;
    sizes.push_back(out);
  }
  return sizes;
}

// [n][channels][taps] as torch has it (transposed: [channels][n][taps], a group at a
// time) to [n][taps][channels].
std::vector<int8_t> rows_of_weight(const Arg& arg, const ConvGeometry& g, const LinearProblem& p) {
  std::vector<int8_t> rows = make_vector<int8_t>(arg, p.n * p.k);
  const int64_t taps = g.taps(), channels = g.group_channels(), group_n = p.n / g.groups;
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t from =
          g.transposed ? (n / group_n * channels + c) * group_n + n % group_n : n * channels + c;
      for (int64_t t = 0; t < taps; ++t)
        rows[static_cast<size_t>((n * taps + t) * channels + c)] = p.weight[from * taps + t];
    }
  return rows;
}

PackedState pack(const LinearBaked& b, const ConvGeometry& geometry, int64_t n) {
  ProblemStorage storage;
  ConvProblem problem{make_problem(b, n, geometry.taps() * geometry.group_channels(), &storage), geometry};
  const std::vector<int8_t> rows = rows_of_weight({b.op, "weight"}, geometry, problem.rows);
  problem.rows.weight = rows.data();
  if (b.dynamic) {  // the engine sees what quantize_images makes
    problem.rows.qparams_in_call = true;
    problem.rows.dynamic = false;
    problem.rows.input_dtype = DType::qu8;
  }
  SerialAfterFork serial;
  PackedState state =
      packed_state(b.op, select_conv(problem, settings().engine.load(), settings().deterministic.load()));
  if (settings().log_dispatch.load(std::memory_order_relaxed)) log_packing(b, state);
  return state;
}

PackedStatePtr packed_conv(const LinearBaked& b, const ConvNumbers& c, const ConvGeometry& g, int64_t n) {
  const char* kinds[2][3] = {{"conv", "conv_dynamic", "conv_bn"},
                             {"conv_transpose", "conv_transpose_dynamic", "conv_transpose_bn"}};
  StateQuery query(kinds[c.transposed][b.bn != nullptr ? 2 : b.dynamic], b.weight);
  add_columns(&query, b);
  query.add(int64_t{static_cast<int>(b.output_dtype)});
  if (!b.dynamic) {
    query.add(int64_t{static_cast<int>(b.input_dtype)});
    query.add(b.input_scale);
    query.add(int64_t{b.input_zero_point});
    query.add(b.output_scale);
    query.add(int64_t{b.output_zero_point});
  }
  query.add(g.groups);
  for (int axis = 0; axis < 3; ++axis) {
    query.add(g.stride[axis]);
    query.add(g.padding[axis]);
    query.add(g.dilation[axis]);
  }
  query.set_post_ops(b.post_ops, b.post_op_args);
  return find_or_pack(query, [&] { return pack(b, g, n); });
}

void run_engine(const LinearBaked& b, const PackedState& state, const ConvArgs& args,
                at::IntArrayRef input_sizes) {
  SerialAfterFork serial;
  try {
    state.as<ConvImpl>().run(args);
  } catch (const std::bad_alloc&) {  // tables of the positions
    raise_out_of_memory({b.op, "input"}, input_sizes);
  } catch (const std::runtime_error& e) {
    TORCH_CHECK(false, "torch_ao::", b.op, ": engine ", state.engine, " failed: ", e.what());
  }
}

// Multiply-adds of an image below which threads take an image each.
constexpr int64_t kSmallImage = 1 << 20;

// One call of the engine for all images, or one for each.
void run_images(const LinearBaked& b, const PackedState& state, const ConvArgs& args,
                const QuantizedImages& images, at::IntArrayRef input_sizes, int64_t n, int64_t k) {
  const int64_t count = static_cast<int64_t>(images.qparams.size());
  const int64_t rows = args.m / count;
  const int64_t output_bytes = rows * n * static_cast<int64_t>(size_of(b.output_dtype));
  const int64_t other_bytes = rows * n * static_cast<int64_t>(size_of(args.other_dtype));
  parallel_for(count, rows * n * k < kSmallImage ? 1 : count, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      ConvArgs one = args;
      one.batch = args.batch / count;
      one.m = rows;
      one.input_bytes = args.input_bytes / count;
      one.input = static_cast<const uint8_t*>(args.input) + i * one.input_bytes;
      one.output = static_cast<uint8_t*>(args.output) + i * output_bytes;
      if (args.other != nullptr) one.other = static_cast<const uint8_t*>(args.other) + i * other_bytes;
      one.input_scale = images.qparams[static_cast<size_t>(i)].scale;
      one.input_zero_point = images.qparams[static_cast<size_t>(i)].zero_point;
      run_engine(b, state, one, input_sizes);
    }
  });
}

}  // namespace

at::Tensor run_conv(const LinearBaked& b, const ConvNumbers& c, const at::Tensor& input,
                    const LinearOther& other) {
  int64_t n = 0;
  const ConvGeometry geometry = make_geometry(b, c, &n);
  check_columns(b, n, c.transposed ? "weight.size(1) * groups" : "weight.size(0)");
  ConvArgs args;
  const Sizes sizes = output_sizes(b, c, geometry, input, n, &args);
  const at::ScalarType dtype = scalar_type_of(b.output_dtype);
  const int64_t numel = check_numel({b.op, "input"}, sizes, c10::elementSize(dtype));
  at::Tensor added = check_other(b.op, names_add(b.post_ops), other, sizes, b.dynamic, &args);
  const Sizes strides = channels_last_strides(sizes);
  if (numel == 0) {
    ProblemStorage storage;
    make_problem(b, n, geometry.taps() * geometry.group_channels(), &storage);  // no way past the checks
    return empty_strided({b.op, "input"}, sizes, strides, dtype);
  }
  QuantizedImages images;
  if (b.dynamic) images = quantize_images({b.op, "input"}, input, b.dynamic_quant);
  const at::Tensor source = channels_last({b.op, "input"}, b.dynamic ? images.data : input);
  if (added.defined()) added = channels_last({b.op, "other"}, added);
  const PackedStatePtr state = packed_conv(b, c, geometry, n);

  // The epilogue reads `other` where it then writes; the input is read all the time.
  const bool apart = added.defined() && !added.is_alias_of(source);
  const at::Tensor output = [&] {
    const MayOverwrite overwrites(apart ? added : at::Tensor());
    return empty_strided({b.op, "input"}, sizes, strides, dtype);
  }();
  args.m = numel / n;
  args.input = source.const_data_ptr();
  args.input_bytes = source.numel();
  args.input_stride = geometry.in_channels;
  args.output = output.mutable_data_ptr();
  if (added.defined()) args.other = added.const_data_ptr();
  const int64_t k = geometry.taps() * geometry.group_channels();
  log_run(b.op, args.m, k, n, *state);
  if (b.dynamic)
    run_images(b, *state, args, images, input.sizes(), n, k);
  else
    run_engine(b, *state, args, input.sizes());
  return output;
}

}  // namespace tae
