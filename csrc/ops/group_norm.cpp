// group_norm:    y = quantize(post_ops((x - mean) / sqrt(var + eps) * weight[c] + bias[c])),
//                mean and var (the biased one) over a sample's group of channels
// instance_norm: a group for each channel
// batch_norm:    the same with mean and var given for each channel
//
// input [N, C, *] uint8 or int8, x = dequantize(input); batch_norm takes float32 and bfloat16
// too, which makes batch norm and quantize one. Rounding: kernels/norm.h; the sums
// are exact integers, an 8-bit result is within one step of that of the formula in f64.
// The output has input's memory order where that is contiguous or channels last, else it is
// contiguous.
//
// Group normalization: Wu, He, arXiv:1803.08494, equations 1 to 3. Batch normalization:
// Ioffe, Szegedy, arXiv:1502.03167, algorithm 2.
#include "core/autograd.h"
#include "core/fork.h"
#include "kernels/lookup.h"
#include "ops/channels_last.h"
#include "ops/norm_common.h"

namespace tae {
namespace {

using at::Tensor;
using OptDtype = std::optional<at::ScalarType>;
using OptTensor = std::optional<at::Tensor>;

// Columns that one thread sums at a time.
constexpr int64_t kColumns = 64;

// input as [samples][channels][inner], or [samples][inner][channels] when channels are last.
struct Images {
  Tensor input, output;
  bool channels_last = false;
  int64_t samples = 1, channels = 1, inner = 1;
  const uint8_t* src = nullptr;
  uint8_t* dst = nullptr;
};

bool is_channels_last(const Tensor& t, at::IntArrayRef strides) {
  for (int64_t d = 0; d < t.dim(); ++d)
    if (t.size(d) != 1 && t.stride(d) != strides[d]) return false;
  return true;
}

void check_images(const char* op, const Tensor& input, int64_t least_rank) {
  check_min_rank({op, "input"}, input, least_rank);
  for (int64_t d = 1; d < input.dim(); ++d)
    TAE_CHECK_VALUE(input.size(d) >= 1, (Arg{op, "input"}), "have no dimension of size 0 but the batch",
                    c10::str("sizes ", input.sizes()));
}

Images images(const char* op, const Tensor& input, at::ScalarType dtype) {
  const Arg arg{op, "input"};
  Images i;
  check_numel(arg, input.sizes(), c10::elementSize(dtype));
  if (input.is_contiguous()) {
    i.input = input;
    i.output = empty_output(arg, input.sizes(), dtype);
  } else {
    const Sizes strides = channels_last_strides(input.sizes());
    i.channels_last = is_channels_last(input, strides);
    i.input = i.channels_last ? input : dense(arg, input);
    i.output = i.channels_last ? empty_strided(arg, input.sizes(), strides, dtype)
                               : empty_output(arg, input.sizes(), dtype);
  }
  i.samples = input.size(0);
  i.channels = input.size(1);
  if (input.numel() == 0) return i;
  i.inner = input.numel() / (i.samples * i.channels);
  check_storage(arg, i.input);
  i.src = static_cast<const uint8_t*>(i.input.const_data_ptr());
  i.dst = static_cast<uint8_t*>(i.output.mutable_data_ptr());
  return i;
}

// What all tasks of a call share.
struct Work {
  const kernels::NormKernels& k;
  const Images& i;
  kernels::Operand operand;
  kernels::Finish finish;
  kernels::LookupBytes look_up;  // null: not faster than the computation

  int64_t width() const { return static_cast<int64_t>(size_of(operand.dtype)); }
  int64_t step() const { return static_cast<int64_t>(size_of(finish.dtype)); }
  kernels::Operand part_at(int64_t at) const {
    kernels::Operand part = operand;
    part.data = i.src + at * width();
    return part;
  }
};

// Values of a channel above which a table of its 256 results is faster than the computation.
constexpr int64_t kTableValues = 1024;

Work make_work(const Images& i, const kernels::Operand& operand, const OutputFinish& out, double* factor) {
  const kernels::LookupBytes look_up = kernels::lookup_bytes(best_isa());
  Work w{kernels::norm_kernels(best_isa()), i, operand, out.finish, nullptr};
  if (!is_quantized(w.finish.dtype)) return w;
  if (is_quantized(operand.dtype) && i.inner >= kTableValues &&
      look_up != kernels::lookup_bytes(Isa::portable))
    w.look_up = look_up;
  if (kernels::folds(w.finish)) {
    *factor = static_cast<double>(w.finish.inverse_scale);
    w.finish.inverse_scale = 1.f;
  }
  return w;
}

// A channel of a sample that lies in one piece.
void apply_channel(const Work& w, int64_t row, float a, float b) {
  const int64_t at = row * w.i.inner;
  uint8_t* dst = w.i.dst + at * w.step();
  if (w.look_up == nullptr) {
    w.k.affine_all(w.finish, w.part_at(at), a, b, w.i.inner, dst);
    return;
  }
  alignas(64) uint8_t every[256], table[256];
  for (int v = 0; v < 256; ++v) every[v] = static_cast<uint8_t>(v);
  kernels::Operand all = w.operand;
  all.data = every;
  w.k.affine_all(w.finish, all, a, b, 256, table);
  w.look_up(table, w.i.src + at, w.i.inner, dst);
}

// Positions [begin, end) of all samples, channels last.
void apply_positions(const Work& w, int64_t begin, int64_t end, const float* a, const float* b,
                     float* scratch) {
  const int64_t at = begin * w.i.channels;
  w.k.affine(w.finish, w.part_at(at), a, b, end - begin, w.i.channels, scratch, w.i.dst + at * w.step());
}

// Sums of every channel of every sample.
void sum_channels(const Work& w, kernels::ByteSums* sums) {
  const Images& i = w.i;
  const DType dtype = w.operand.dtype;
  if (!i.channels_last) {
    const int64_t grain = std::max<int64_t>(1, kElementGrain / i.inner);
    parallel_for(i.samples * i.channels, grain, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) w.k.sums(i.src + c * i.inner, dtype, i.inner, sums + c);
    });
    return;
  }
  const int64_t blocks = (i.channels + kColumns - 1) / kColumns;
  const int64_t grain = std::max<int64_t>(1, kElementGrain / (i.inner * kColumns));
  parallel_for(i.samples * blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t n = b / blocks, first = b % blocks * kColumns;
      w.k.column_sums(i.src + n * i.inner * i.channels + first, dtype, i.inner, i.channels,
                      std::min(kColumns, i.channels - first), sums + n * i.channels + first);
    }
  });
}

// r = fma(f32(q - zero_point), a[n, c], b[n, c]); `shared` when all samples have the same.
void apply(const Arg& arg, const Work& w, const float* a, const float* b, bool shared) {
  const Images& i = w.i;
  const int64_t next = shared ? 0 : i.channels;
  if (!i.channels_last) {
    const int64_t grain = std::max<int64_t>(1, kElementGrain / i.inner);
    parallel_for(i.samples * i.channels, grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t at = row / i.channels * next + row % i.channels;
        apply_channel(w, row, a[at], b[at]);
      }
    });
    return;
  }
  const int64_t grain = std::max<int64_t>(1, kElementGrain / i.channels);
  parallel_for(i.samples * i.inner, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch = make_vector<float>(arg, kernels::lane_floats(i.channels));
    for (int64_t row = begin; row < end;) {  // the rows of one sample at a time
      const int64_t stop = shared ? end : std::min(end, (row / i.inner + 1) * i.inner);
      const int64_t at = row / i.inner * next;
      apply_positions(w, row, stop, a + at, b + at, scratch.data());
      row = stop;
    }
  });
}

// Pieces that one thread normalizes while they are in its caches: samples, or groups where
// their channels lie in one piece each.
int64_t pieces_of(const Images& i, const kernels::GroupNumbers& g) {
  return i.channels_last ? i.samples : i.samples * g.groups;
}

void normalize_pieces(const Arg& arg, const Work& w, const kernels::GroupNumbers& g) {
  const Images& i = w.i;
  const int64_t pieces = i.channels_last ? 1 : g.groups;  // of a sample
  const int64_t channels = g.channels / pieces;
  const int64_t grain = std::max<int64_t>(1, kElementGrain / (channels * i.inner));
  parallel_for(i.samples * pieces, grain, [&](int64_t begin, int64_t end) {
    kernels::GroupNumbers piece = g;  // of this thread: it moves from group to group
    piece.channels = channels;
    piece.groups = g.groups / pieces;
    std::vector<kernels::ByteSums> sums = make_vector<kernels::ByteSums>(arg, channels);
    std::vector<float> a = make_vector<float>(arg, channels), b = make_vector<float>(arg, channels);
    std::vector<float> scratch = make_vector<float>(arg, kernels::lane_floats(channels));
    for (int64_t p = begin; p < end; ++p) {
      const int64_t row = p * channels, first = row % g.channels;
      std::fill(sums.begin(), sums.end(), kernels::ByteSums());
      const uint8_t* src = i.src + row * i.inner;
      if (i.channels_last) {
        w.k.column_sums(src, w.operand.dtype, i.inner, channels, channels, sums.data());
      } else {
        for (int64_t c = 0; c < channels; ++c)
          w.k.sums(src + c * i.inner, w.operand.dtype, i.inner, sums.data() + c);
      }
      if (g.weight != nullptr) piece.weight = g.weight + first;
      if (g.bias != nullptr) piece.bias = g.bias + first;
      kernels::group_coefficients(piece, w.operand, sums.data(), a.data(), b.data());
      if (i.channels_last) {
        apply_positions(w, p * i.inner, (p + 1) * i.inner, a.data(), b.data(), scratch.data());
      } else {
        for (int64_t c = 0; c < channels; ++c) apply_channel(w, row + c, a[c], b[c]);
      }
    }
  });
}

// The arguments that all of them have, in schema order.
struct Call {
  const Tensor& input;
  double input_scale;
  int64_t input_zero_point;
  double output_scale;
  int64_t output_zero_point;
  OptDtype output_dtype;
  std::string_view post_ops;
  at::ArrayRef<double> post_op_args;
};

void check_call(const char* op, const Call& call, int64_t least_rank, OutputFinish* out) {
  check_images(op, call.input, least_rank);
  check_output(op, call.input.scalar_type(), call.output_scale, call.output_zero_point, call.output_dtype,
               call.post_ops, call.post_op_args, out);
}

// groups 0: one for each channel.
Tensor normalize_groups(const char* op, const Call& call, const OptTensor& weight, const OptTensor& bias,
                        int64_t groups, double eps, int64_t least_rank) {
  const kernels::Operand operand = check_operand({op, "input"}, {op, "input_scale"}, {op, "input_zero_point"},
                                                 call.input, call.input_scale, call.input_zero_point);
  OutputFinish out;
  check_call(op, call, least_rank, &out);
  const int64_t channels = call.input.size(1);
  kernels::GroupNumbers g;
  g.eps = check_eps(op, eps);
  const Parameter w = check_parameter({op, "weight"}, weight, channels, "input.size(1)");
  const Parameter shift = check_parameter({op, "bias"}, bias, channels, "input.size(1)");
  const Images i = images(op, call.input, out.dtype);
  if (i.src == nullptr) return i.output;
  g.channels = channels;
  g.groups = groups == 0 ? channels : groups;
  g.count = i.inner;
  g.weight = w.data;
  g.bias = shift.data;
  const Arg arg{op, "input"};
  const Work work = make_work(i, operand, out, &g.factor);
  if (pieces_of(i, g) >= num_threads()) {
    normalize_pieces(arg, work, g);
    return i.output;
  }
  std::vector<kernels::ByteSums> sums = make_vector<kernels::ByteSums>(arg, i.samples * channels);
  std::vector<float> a = make_vector<float>(arg, i.samples * channels);
  std::vector<float> b = make_vector<float>(arg, i.samples * channels);
  sum_channels(work, sums.data());
  for (int64_t at = 0; at < i.samples * channels; at += channels)
    kernels::group_coefficients(g, operand, sums.data() + at, a.data() + at, b.data() + at);
  apply(arg, work, a.data(), b.data(), false);
  return i.output;
}

Tensor group_norm(const Tensor& input, double input_scale, int64_t input_zero_point, const OptTensor& weight,
                  const OptTensor& bias, double output_scale, int64_t output_zero_point,
                  OptDtype output_dtype, int64_t num_groups, double eps, std::string_view post_ops,
                  at::ArrayRef<double> post_op_args) {
  const char* op = "group_norm";
  check_tensor({op, "input"}, input, kInt8Dtypes);
  check_min_rank({op, "input"}, input, 2);
  TAE_CHECK_VALUE(num_groups >= 1 && input.size(1) % num_groups == 0, (Arg{op, "num_groups"}),
                  c10::str("be at least 1 and divide input.size(1) (", input.size(1), ")"), num_groups);
  return normalize_groups(op,
                          {input, input_scale, input_zero_point, output_scale, output_zero_point,
                           output_dtype, post_ops, post_op_args},
                          weight, bias, num_groups, eps, 2);
}

Tensor instance_norm(const Tensor& input, double input_scale, int64_t input_zero_point,
                     const OptTensor& weight, const OptTensor& bias, double output_scale,
                     int64_t output_zero_point, OptDtype output_dtype, double eps, std::string_view post_ops,
                     at::ArrayRef<double> post_op_args) {
  return normalize_groups("instance_norm",
                          {input, input_scale, input_zero_point, output_scale, output_zero_point,
                           output_dtype, post_ops, post_op_args},
                          weight, bias, 0, eps, 3);
}

Tensor batch_norm(const Tensor& input, double input_scale, int64_t input_zero_point,
                  const Tensor& running_mean, const Tensor& running_var, const OptTensor& weight,
                  const OptTensor& bias, double output_scale, int64_t output_zero_point,
                  OptDtype output_dtype, double eps, std::string_view post_ops,
                  at::ArrayRef<double> post_op_args) {
  const char* op = "batch_norm";
  const kernels::RealRows real = check_real({op, "input"}, {op, "input_scale"}, {op, "input_zero_point"},
                                            input, input_scale, input_zero_point);
  const kernels::Operand operand{nullptr, real.dtype, real.scale, real.zero_point};
  OutputFinish out;
  check_call(op,
             {input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype, post_ops,
              post_op_args},
             2, &out);
  const int64_t channels = input.size(1);
  const char* what = "input.size(1)";
  check_tensor({op, "running_mean"}, running_mean, kFloatDtypes);
  check_tensor({op, "running_var"}, running_var, kFloatDtypes);
  const Parameter mean = check_parameter({op, "running_mean"}, running_mean, channels, what);
  const Parameter var = check_parameter({op, "running_var"}, running_var, channels, what);
  const Parameter w = check_parameter({op, "weight"}, weight, channels, what);
  const Parameter shift = check_parameter({op, "bias"}, bias, channels, what);
  kernels::BatchNumbers numbers{channels, check_eps(op, eps), mean.data, var.data, w.data, shift.data};
  const Images i = images(op, input, out.dtype);
  if (i.src == nullptr) return i.output;
  const Work work = make_work(i, operand, out, &numbers.factor);
  std::vector<float> a = make_vector<float>({op, "input"}, channels);
  std::vector<float> b = make_vector<float>({op, "input"}, channels);
  kernels::batch_coefficients(numbers, operand.scale, a.data(), b.data());
  apply({op, "input"}, work, a.data(), b.data(), true);
  return i.output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "group_norm(Tensor input, float input_scale, int input_zero_point, Tensor? weight, Tensor? bias, "
      "float output_scale, int output_zero_point, ScalarType? output_dtype, int num_groups, "
      "float eps=1e-05, str post_ops='', float[] post_op_args=[]) -> Tensor");
  m.def(
      "instance_norm(Tensor input, float input_scale, int input_zero_point, Tensor? weight, Tensor? bias, "
      "float output_scale, int output_zero_point, ScalarType? output_dtype, float eps=1e-05, "
      "str post_ops='', float[] post_op_args=[]) -> Tensor");
  m.def(
      "batch_norm(Tensor input, float input_scale, int input_zero_point, Tensor running_mean, "
      "Tensor running_var, Tensor? weight, Tensor? bias, float output_scale, int output_zero_point, "
      "ScalarType? output_dtype, float eps=1e-05, str post_ops='', float[] post_op_args=[]) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("group_norm", TORCH_FN(group_norm));
  m.impl("instance_norm", TORCH_FN(instance_norm));
  m.impl("batch_norm", TORCH_FN(batch_norm));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("group_norm", TORCH_FN((InferenceOnly<"group_norm", group_norm>::call)));
  m.impl("instance_norm", TORCH_FN((InferenceOnly<"instance_norm", instance_norm>::call)));
  m.impl("batch_norm", TORCH_FN((InferenceOnly<"batch_norm", batch_norm>::call)));
}

}  // namespace tae
