#include "ops/pool_common.h"

namespace tae {
namespace {

// Sums of this many 8-bit values fit in int32.
constexpr int64_t kMostTaps = int64_t{1} << 23;
constexpr int64_t kMost = (int64_t{1} << 31) - 1;
constexpr int64_t kPointers = 1024;  // to rows of windows, in L1

void check_list(const char* op, const char* name, at::IntArrayRef values, int rank, int64_t least) {
  const Arg arg{op, name};
  TAE_CHECK_VALUE(static_cast<int>(values.size()) == rank, arg, c10::str("have ", rank, " values"), values);
  for (int64_t v : values)
    TAE_CHECK_VALUE(v >= least && v <= kMost, arg, c10::str("hold values in [", least, ", 2^31)"), v);
}

void check_input(const char* op, const at::Tensor& input, int rank) {
  const Arg arg{op, "input"};
  check_tensor(arg, input, kInt8Dtypes);
  check_rank(arg, input, rank + 2);
  for (int64_t d = 1; d < input.dim(); ++d)
    TAE_CHECK_VALUE(input.size(d) >= 1, arg, "have no dimension of size 0 but the batch",
                    c10::str("sizes ", input.sizes()));
}

PoolAxis make_axis(const char* op, int64_t input, int64_t kernel, int64_t stride, int64_t padding,
                   int64_t dilation, bool ceil_mode) {
  const int64_t reach = dilation * (kernel - 1) + 1;
  TAE_CHECK_VALUE(padding <= reach / 2, (Arg{op, "padding"}), "be at most half of the dilated kernel",
                  padding);
  const int64_t room = input + 2 * padding - reach;
  TAE_CHECK_VALUE(room >= 0, (Arg{op, "kernel_size"}), "with dilation fit into the padded input", kernel);
  int64_t size = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  // The last window starts inside the input or its left padding.
  if (ceil_mode && (size - 1) * stride >= input + padding) --size;
  return {input, size, kernel, stride, padding, dilation};
}

void finish_sizes(const char* op, const at::Tensor& input, int rank, PoolPlan* plan) {
  plan->sizes = {input.size(0), input.size(1)};
  int64_t taps = 1;
  for (int i = 0; i < 3; ++i) {
    const PoolAxis& axis = plan->axes[i];
    if (i >= 3 - rank) plan->sizes.push_back(axis.size);
    taps *= axis.most();
    TAE_CHECK_VALUE(taps <= kMostTaps, (Arg{op, "input"}), "have at most 2^23 positions in a window", taps);
  }
}

}  // namespace

PoolWindow PoolAxis::window(int64_t o) const {
  if (kernel == 0) {
    const int64_t begin = o * input / size, end = ((o + 1) * input + size - 1) / size;
    return {begin, end - begin, end - begin};
  }
  const int64_t start = o * stride - padding;
  const int64_t skipped = start < 0 ? (-start + step - 1) / step : 0;
  const int64_t first = start + skipped * step;
  const int64_t inside = first < input ? (input - first + step - 1) / step : 0;
  // avg_pool, which asks for `padded`, has no dilation.
  return {first, std::min(kernel - skipped, inside), std::min(start + kernel, input + padding) - start};
}

int64_t PoolAxis::most() const {
  return kernel == 0 ? std::min(input, input / size + 2) : std::min(kernel, input);
}

PoolPlan plan_windows(const char* op, const at::Tensor& input, const PoolNumbers& numbers) {
  const int rank = numbers.rank;
  check_input(op, input, rank);
  check_list(op, "kernel_size", numbers.kernel, rank, 1);
  check_list(op, "stride", numbers.stride, rank, 1);
  check_list(op, "padding", numbers.padding, rank, 0);
  check_list(op, "dilation", numbers.dilation, rank, 1);
  PoolPlan plan;
  for (int i = 0; i < rank; ++i)
    plan.axes[3 - rank + i] = make_axis(op, input.size(2 + i), numbers.kernel[i], numbers.stride[i],
                                        numbers.padding[i], numbers.dilation[i], numbers.ceil_mode);
  finish_sizes(op, input, rank, &plan);
  return plan;
}

PoolPlan plan_adaptive(const char* op, const at::Tensor& input, int rank, at::IntArrayRef output_size) {
  check_input(op, input, rank);
  check_list(op, "output_size", output_size, rank, 1);
  PoolPlan plan;
  for (int i = 0; i < rank; ++i) {
    const int64_t in = input.size(2 + i), out = output_size[i];
    TAE_CHECK_VALUE(in <= kMost, (Arg{op, "input"}), "have spatial sizes below 2^31", in);
    plan.axes[3 - rank + i] = {in, out, 0, 0, 0, 1};
  }
  finish_sizes(op, input, rank, &plan);
  return plan;
}

std::vector<PoolWindow> windows_of(const Arg& arg, const PoolAxis& axis) {
  std::vector<PoolWindow> windows = make_vector<PoolWindow>(arg, axis.size);
  for (int64_t o = 0; o < axis.size; ++o) windows[o] = axis.window(o);
  return windows;
}

at::Tensor run_pool(const char* op, const at::Tensor& input, const PoolPlan& plan, at::ScalarType dtype,
                    PoolBody body, const void* context) {
  const Arg arg{op, "input"};
  const int64_t numel = check_numel(arg, plan.sizes, c10::elementSize(dtype));
  at::Tensor output = empty_strided(arg, plan.sizes, channels_last_strides(plan.sizes), dtype);
  if (numel == 0) return output;
  const at::Tensor source = channels_last(arg, input);
  const int64_t channels = input.size(1);
  const uint8_t* src = static_cast<const uint8_t*>(source.const_data_ptr());
  uint8_t* dst = static_cast<uint8_t*>(output.mutable_data_ptr());
  const int64_t step = channels * size_of_element(output);
  const auto &d = plan.axes[0], &h = plan.axes[1], &w = plan.axes[2];
  const int64_t taps = d.most() * h.most() * w.most();
  const int64_t grain = std::max<int64_t>(1, kElementGrain / (taps * channels));
  const std::vector<PoolWindow> xs = windows_of(arg, w), ys = windows_of(arg, h), zs = windows_of(arg, d);
  // The positions [from, to) of a line of the output, whose windows have one size.
  const auto run_windows = [&](int64_t l, int64_t from, int64_t to, const void** rows) {
    const PoolWindow &y = ys[l % h.size], &z = zs[l / h.size % d.size];
    const int64_t n = l / (h.size * d.size);
    const int64_t count = z.count * y.count * xs[from].count;
    const void** tap = rows;
    for (int64_t i = 0; i < z.count; ++i)
      for (int64_t j = 0; j < y.count; ++j) {
        const int64_t line =
            ((n * d.input + z.first + i * d.step) * h.input + y.first + j * h.step) * w.input;
        for (int64_t k = 0; k < xs[from].count; ++k, ++tap) {
          const uint8_t* first = src + (line + k * w.step) * channels;
          for (int64_t o = from; o < to; ++o) tap[(o - from) * count] = first + xs[o].first * channels;
        }
      }
    body(context, rows, count, to - from, z.padded * y.padded * xs[from].padded,
         dst + (l * w.size + from) * step);
  };
  parallel_for(numel / channels, grain, [&](int64_t begin, int64_t end) {
    // As many positions at a time as keep the pointers few.
    const int64_t most = std::clamp<int64_t>(kPointers / taps, 1, w.size);
    std::vector<const void*> rows = make_vector<const void*>(arg, taps * most);
    for (int64_t p = begin; p < end;) {
      const int64_t from = p % w.size, last = std::min({w.size, from + end - p, from + most});
      int64_t to = from + 1;
      while (to < last && xs[to].count == xs[from].count && xs[to].padded == xs[from].padded) ++to;
      run_windows(p / w.size, from, to, rows.data());
      p += to - from;
    }
  });
  return output;
}

}  // namespace tae
