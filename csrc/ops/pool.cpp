// max_pool: the largest value of each window; padding never wins (a window of nothing else
// gives the smallest integer, as -inf would).
// avg_pool, adaptive_avg_pool: y = quantize(f32(sum (x - zp_x)) * s_x / divisor), the sum
// exact, padding adds 0; the divisor is the number of positions (with the padding that
// torch counts, unless count_include_pad is false) or divisor_override.
//
// input [N, C, *S] uint8 or int8 in any layout (channels last is not copied), output
// [N, C, *S'] channels last. Windows are those of torch.nn.functional.
#include <cstring>

#include "core/autograd.h"
#include "ops/pool_common.h"

namespace tae {
namespace {

using at::IntArrayRef;
using at::Tensor;
using OptDtype = std::optional<at::ScalarType>;
using OptList = at::OptionalIntArrayRef;

// Columns of the input that windows of a line read.
struct Columns {
  int64_t first = 0, end = 0;
};

Columns columns_of(const PoolWindow* windows, int64_t count, int64_t step) {
  Columns c{INT64_MAX, 0};  // a dilated window in the padding may begin behind the next one
  for (int64_t o = 0; o < count; ++o) {
    if (windows[o].count == 0) continue;
    c.first = std::min(c.first, windows[o].first);
    c.end = std::max(c.end, windows[o].first + (windows[o].count - 1) * step + 1);
  }
  return c;
}

// A line of the output at a time: small windows that hardly overlap one by one, others first down the
// columns, over whole lines of the input, then along the line.
Tensor max_pool(const char* op, const Tensor& input, const PoolNumbers& numbers) {
  const Arg arg{op, "input"};
  const PoolPlan plan = plan_windows(op, input, numbers);
  const int64_t numel = check_numel(arg, plan.sizes, 1);
  const Tensor output =
      empty_strided(arg, plan.sizes, channels_last_strides(plan.sizes), input.scalar_type());
  if (numel == 0) return output;
  const Tensor source = channels_last(arg, input);
  const kernels::ElementwiseKernels& k = kernels::elementwise_kernels(best_isa());
  const DType dtype = dtype_of(input.scalar_type());
  // No structured binding: clang 14 lets no lambda use one.
  const auto &d = plan.axes[0], &h = plan.axes[1], &w = plan.axes[2];
  const std::vector<PoolWindow> xs = windows_of(arg, w), ys = windows_of(arg, h), zs = windows_of(arg, d);
  const int64_t channels = input.size(1), taps = d.most() * h.most();
  const bool one_by_one = taps > 1 && taps <= 3 && w.most() <= 3 && w.stride > 1;
  const Columns all = columns_of(xs.data(), w.size, w.step);
  const uint8_t* src = static_cast<const uint8_t*>(source.const_data_ptr());
  uint8_t* dst = static_cast<uint8_t*>(output.mutable_data_ptr());
  const auto run_line = [&](int64_t l, int64_t from, int64_t to, const void** rows, uint8_t* scratch) {
    const PoolWindow &y = ys[l % h.size], &z = zs[l / h.size % d.size];
    const int64_t n = l / (h.size * d.size), count = z.count * y.count;
    uint8_t* line = dst + (l * w.size + from) * channels;
    const bool whole = from == 0 && to == w.size;
    const Columns c = whole ? all : columns_of(xs.data() + from, to - from, w.step);
    if (count == 0 || c.end == 0) {  // a dilated window of a small input may see padding only
      std::memset(line, dtype == DType::qs8 ? -128 : 0, static_cast<size_t>((to - from) * channels));
      return;
    }
    for (int64_t i = 0; i < z.count; ++i)
      for (int64_t j = 0; j < y.count; ++j) {
        const int64_t row = (n * d.input + z.first + i * d.step) * h.input + y.first + j * h.step;
        rows[i * y.count + j] = src + (row * w.input + (one_by_one ? 0 : c.first)) * channels;
      }
    if (one_by_one) {
      k.max_areas(rows, count, xs.data() + from, w.step, to - from, channels, dtype, line);
      return;
    }
    const uint8_t* most = static_cast<const uint8_t*>(rows[0]);
    if (count > 1) {
      k.max_rows(rows, count, (c.end - c.first) * channels, dtype, scratch);
      most = scratch;
    }
    k.max_windows(most, c.first, xs.data() + from, w.step, to - from, channels, dtype, line);
  };
  const int64_t grain = std::max<int64_t>(1, kElementGrain / (taps * w.most() * channels));
  parallel_for(numel / channels, grain, [&](int64_t begin, int64_t end) {
    std::vector<const void*> rows = make_vector<const void*>(arg, taps);
    std::vector<uint8_t> scratch = make_vector<uint8_t>(arg, taps > 1 ? w.input * channels : 0);
    for (int64_t p = begin; p < end;) {
      const int64_t from = p % w.size, to = std::min(w.size, from + end - p);
      run_line(p / w.size, from, to, rows.data(), scratch.data());
      p += to - from;
    }
  });
  return output;
}

// The arguments that every average has, in schema order.
struct Average {
  const Tensor& input;
  double input_scale;
  int64_t input_zero_point;
  double output_scale;
  int64_t output_zero_point;
  OptDtype output_dtype;
};

struct AverageContext {
  const kernels::ElementwiseKernels& k;
  const kernels::Finish& finish;
  kernels::Operand row;
  int64_t channels;
  bool include_padding;
  float divisor;  // 0: the size of the window
};

kernels::Operand average_operand(const char* op, const Average& a, OutputFinish* out) {
  const kernels::Operand row = check_operand({op, "input"}, {op, "input_scale"}, {op, "input_zero_point"},
                                             a.input, a.input_scale, a.input_zero_point);
  check_output(op, a.input.scalar_type(), a.output_scale, a.output_zero_point, a.output_dtype, "", {}, out);
  return row;
}

Tensor average(const char* op, const Average& a, const PoolPlan& plan, const kernels::Operand& row,
               const OutputFinish& out, bool include_padding, float divisor) {
  const AverageContext context{
      kernels::elementwise_kernels(best_isa()), out.finish, row, a.input.size(1), include_padding, divisor};
  const auto body = [](const void* c, const void* const* rows, int64_t count, int64_t outputs, int64_t padded,
                       void* output) {
    const AverageContext& m = *static_cast<const AverageContext*>(c);
    const float parts = m.divisor != 0.f ? m.divisor : static_cast<float>(m.include_padding ? padded : count);
    m.k.average_rows(m.finish, m.row, rows, count, outputs, m.channels, parts, output);
  };
  return run_pool(op, a.input, plan, out.dtype, body, &context);
}

constexpr int64_t kDivisorEnd = int64_t{1} << 31;

Tensor avg_pool(const char* op, const Average& a, const PoolNumbers& numbers, bool count_include_pad,
                std::optional<int64_t> divisor_override) {
  OutputFinish out;
  const kernels::Operand row = average_operand(op, a, &out);
  if (divisor_override.has_value())
    TAE_CHECK_VALUE(
        *divisor_override != 0 && *divisor_override > -kDivisorEnd && *divisor_override < kDivisorEnd,
        (Arg{op, "divisor_override"}), "be a number other than 0 in (-2^31, 2^31)", *divisor_override);
  const PoolPlan plan = plan_windows(op, a.input, numbers);
  return average(op, a, plan, row, out, count_include_pad, static_cast<float>(divisor_override.value_or(0)));
}

Tensor adaptive_avg_pool(const char* op, const Average& a, int rank, IntArrayRef output_size) {
  OutputFinish out;
  const kernels::Operand row = average_operand(op, a, &out);
  return average(op, a, plan_adaptive(op, a.input, rank, output_size), row, out, false, 0.f);
}

// None, which some runtimes hand over as an empty list, is the kernel's size.
IntArrayRef stride_of(const OptList& stride, IntArrayRef kernel_size) {
  return stride.has_value() && !stride->empty() ? *stride : kernel_size;
}

constexpr int64_t kOnes[3] = {1, 1, 1};

// The ops of one rank. A macro would hide the names: they are template arguments.
template <int kRank, OpName kMax, OpName kAverage, OpName kAdaptive>
struct Pool {
  static Tensor max(const Tensor& input, IntArrayRef kernel_size, OptList stride, IntArrayRef padding,
                    IntArrayRef dilation, bool ceil_mode) {
    return max_pool(kMax.c_str(), input,
                    {kRank, kernel_size, stride_of(stride, kernel_size), padding, dilation, ceil_mode});
  }
  static Tensor avg(const Tensor& input, double input_scale, int64_t input_zero_point, double output_scale,
                    int64_t output_zero_point, OptDtype output_dtype, IntArrayRef kernel_size, OptList stride,
                    IntArrayRef padding, bool ceil_mode, bool count_include_pad,
                    std::optional<int64_t> divisor_override) {
    return avg_pool(
        kAverage.c_str(),
        {input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype},
        {kRank, kernel_size, stride_of(stride, kernel_size), padding, IntArrayRef(kOnes, kRank), ceil_mode},
        count_include_pad, divisor_override);
  }
  static Tensor adaptive(const Tensor& input, double input_scale, int64_t input_zero_point,
                         double output_scale, int64_t output_zero_point, OptDtype output_dtype,
                         IntArrayRef output_size) {
    return adaptive_avg_pool(
        kAdaptive.c_str(),
        {input, input_scale, input_zero_point, output_scale, output_zero_point, output_dtype}, kRank,
        output_size);
  }
};

using Pool1d = Pool<1, "max_pool1d", "avg_pool1d", "adaptive_avg_pool1d">;
using Pool2d = Pool<2, "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d">;
using Pool3d = Pool<3, "max_pool3d", "avg_pool3d", "adaptive_avg_pool3d">;

void define(torch::Library& m, const std::string& rank) {
  const std::string list = "int[" + rank + "]";
  const std::string average =
      "Tensor input, float input_scale, int input_zero_point, float output_scale, int output_zero_point, "
      "ScalarType? output_dtype, ";
  const std::string max = "max_pool" + rank + "d(Tensor input, " + list + " kernel_size, " + list +
                          "? stride=None, " + list + " padding=0, " + list +
                          " dilation=1, bool ceil_mode=False) -> Tensor";
  const std::string avg = "avg_pool" + rank + "d(" + average + list + " kernel_size, " + list +
                          "? stride=None, " + list +
                          " padding=0, bool ceil_mode=False, bool count_include_pad=True, "
                          "int? divisor_override=None) -> Tensor";
  const std::string adaptive = "adaptive_avg_pool" + rank + "d(" + average + list + " output_size) -> Tensor";
  for (const std::string& schema : {max, avg, adaptive}) m.def(schema.c_str());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  for (const char* rank : {"1", "2", "3"}) define(m, rank);
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("max_pool1d", TORCH_FN(Pool1d::max));
  m.impl("max_pool2d", TORCH_FN(Pool2d::max));
  m.impl("max_pool3d", TORCH_FN(Pool3d::max));
  m.impl("avg_pool1d", TORCH_FN(Pool1d::avg));
  m.impl("avg_pool2d", TORCH_FN(Pool2d::avg));
  m.impl("avg_pool3d", TORCH_FN(Pool3d::avg));
  m.impl("adaptive_avg_pool1d", TORCH_FN(Pool1d::adaptive));
  m.impl("adaptive_avg_pool2d", TORCH_FN(Pool2d::adaptive));
  m.impl("adaptive_avg_pool3d", TORCH_FN(Pool3d::adaptive));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("max_pool1d", TORCH_FN((InferenceOnly<"max_pool1d", Pool1d::max>::call)));
  m.impl("max_pool2d", TORCH_FN((InferenceOnly<"max_pool2d", Pool2d::max>::call)));
  m.impl("max_pool3d", TORCH_FN((InferenceOnly<"max_pool3d", Pool3d::max>::call)));
  m.impl("avg_pool1d", TORCH_FN((InferenceOnly<"avg_pool1d", Pool1d::avg>::call)));
  m.impl("avg_pool2d", TORCH_FN((InferenceOnly<"avg_pool2d", Pool2d::avg>::call)));
  m.impl("avg_pool3d", TORCH_FN((InferenceOnly<"avg_pool3d", Pool3d::avg>::call)));
  m.impl("adaptive_avg_pool1d", TORCH_FN((InferenceOnly<"adaptive_avg_pool1d", Pool1d::adaptive>::call)));
  m.impl("adaptive_avg_pool2d", TORCH_FN((InferenceOnly<"adaptive_avg_pool2d", Pool2d::adaptive>::call)));
  m.impl("adaptive_avg_pool3d", TORCH_FN((InferenceOnly<"adaptive_avg_pool3d", Pool3d::adaptive>::call)));
}

}  // namespace tae
