// interpolate: y = quantize(the values of x at the output's positions), as
// torch.nn.functional.interpolate places them, over [N, C, *S] of 1 to 3 spatial dimensions.
//
// nearest:  x at min(floor(o * step), size - 1), brought to the output's qparams.
// bilinear: ((a * (1-v)(1-u) + b * (1-v)u) + (c * v(1-u) + d * vu)) * s_x, a ... d = f32(q - zp)
//           of the four neighbours, u and v the parts behind the point of the source position
//           max(0, (o + 0.5) * step - 0.5), or o * step with aligned corners; two dimensions.
//           Where the output has the input's qparams, everything is counted in steps: s_x and the
//           output's scale are 1, so that nothing but the result is rounded.
// step is 1 / scale where a scale is given, else size / output size ((size - 1) / (output size
// - 1) with aligned corners); positions, weights and sums one f32 operation a step.
//
// The input is read channels last (another layout is copied once), the output is channels last.
#include <cstring>

#include "core/autograd_sizes.h"
#include "kernels/upsample.h"
#include "kernels/vec_float_env.h"
#include "ops/channels_last.h"
#include "ops/table.h"

namespace tae {
namespace {

using at::Tensor;
using OptDtype = std::optional<at::ScalarType>;

constexpr int64_t kMost = int64_t{1} << 24;  // positions are f32

struct Axis {
  int64_t size = 1, out = 1;
  double scale = 0.;  // 0: by the sizes
};

// Source positions of an axis.
struct Position {
  int64_t first = 0, second = 0;
  float weight[2] = {1.f, 0.f};
};

[[gnu::noinline]] void nearest_positions(const Axis& a, Position* at) noexcept {
  const float step = a.scale > 0. ? static_cast<float>(1. / a.scale)
                                  : static_cast<float>(a.size) / static_cast<float>(a.out);
  for (int64_t o = 0; o < a.out; ++o) {
    const float source = static_cast<float>(o) * step;
    at[o].first = source < static_cast<float>(a.size - 1) ? static_cast<int64_t>(source) : a.size - 1;
  }
}

[[gnu::noinline]] void linear_positions(const Axis& a, bool align_corners, Position* at) noexcept {
  float step = a.scale > 0. ? static_cast<float>(1. / a.scale)
                            : static_cast<float>(a.size) / static_cast<float>(a.out);
  if (align_corners) step = a.out > 1 ? static_cast<float>(a.size - 1) / static_cast<float>(a.out - 1) : 0.f;
  for (int64_t o = 0; o < a.out; ++o) {
    float source =
        align_corners ? static_cast<float>(o) * step : (static_cast<float>(o) + 0.5f) * step - 0.5f;
    source = source > 0.f ? source : 0.f;
    const int64_t first = source < static_cast<float>(a.size - 1) ? static_cast<int64_t>(source) : a.size - 1;
    const float part = source - static_cast<float>(first);
    const float behind = part < 1.f ? part : 1.f;
    at[o].first = first;
    at[o].second = first + (first + 1 < a.size ? 1 : 0);
    at[o].weight[0] = 1.f - behind;
    at[o].weight[1] = behind;
  }
}

std::vector<Position> positions(const Arg& arg, const Axis& axis, bool linear, bool align_corners) {
  std::vector<Position> at = make_vector<Position>(arg, axis.out);
  const kernels::DefaultFloatEnv env;
  if (linear)
    linear_positions(axis, align_corners, at.data());
  else
    nearest_positions(axis, at.data());
  return at;
}

// Whether the output has twice the size, and its positions the weights 3/4 and 1/4.
bool doubles(const Axis& a) {
  return a.out == 2 * a.size && a.out < kMost / 2 && (a.scale == 0. || a.scale == 2.);
}

// `images` of bilinear values in steps, twice as high and wide: the two lines between
// neighbouring ones at a time.
void double_images(kernels::DoubleLines kernel, const kernels::Operand& operand, const uint8_t* src,
                   int64_t images, const Axis& height, const Axis& width, int64_t channels, uint8_t* dst) {
  const int64_t gaps = height.size + 1, line = width.size * channels, out_line = 2 * line;
  const int64_t grain = std::max<int64_t>(1, kElementGrain / (2 * out_line));
  parallel_for(images * gaps, grain, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const int64_t n = g / gaps, y = g % gaps;
      const uint8_t* image = src + n * height.size * line;
      const uint8_t* above = image + std::max<int64_t>(0, y - 1) * line;
      const uint8_t* below = image + std::min(y, height.size - 1) * line;
      uint8_t* lower = dst + (n * height.out + 2 * y) * out_line;
      kernel(above, below, width.size, channels, operand.dtype, operand.zero_point,
             y > 0 ? lower - out_line : nullptr, y < height.size ? lower : nullptr);
    }
  });
}

struct Grid {
  Axis axes[3];
  Sizes sizes;
};

Grid check_grid(const char* op, const Tensor& input, at::IntArrayRef size, at::ArrayRef<double> scales) {
  const Arg arg{op, "input"}, size_arg{op, "output_size"}, scale_arg{op, "scale_factors"};
  TAE_CHECK_VALUE(input.dim() >= 3 && input.dim() <= 5, arg, "have 3 to 5 dimensions",
                  c10::str("sizes ", input.sizes()));
  const size_t rank = static_cast<size_t>(input.dim() - 2);
  TAE_CHECK_VALUE(size.size() == rank, size_arg, c10::str("have ", rank, " values"), size);
  TAE_CHECK_VALUE(scales.empty() || scales.size() == rank, scale_arg, c10::str("have 0 or ", rank, " values"),
                  scales);
  Grid grid;
  grid.sizes = {input.size(0), input.size(1)};
  for (size_t i = 0; i < rank; ++i) {
    const int64_t in = input.size(2 + static_cast<int64_t>(i));
    TAE_CHECK_VALUE(in >= 1 && in < kMost, arg, "have spatial sizes in [1, 2^24)", in);
    TAE_CHECK_VALUE(size[i] >= 1 && size[i] < kMost, size_arg, "hold values in [1, 2^24)", size[i]);
    double scale = 0.;
    if (!scales.empty()) {
      scale = scales[i];
      TAE_CHECK_VALUE(scale > 1e-9 && scale < 1e9, scale_arg, "hold values in (1e-9, 1e9)", scale);
    }
    grid.axes[3 - rank + i] = {in, size[i], scale};
    grid.sizes.push_back(size[i]);
  }
  TAE_CHECK_VALUE(input.size(1) >= 1, arg, "have at least 1 channel", c10::str("sizes ", input.sizes()));
  return grid;
}

Tensor interpolate(const Tensor& input, double input_scale, int64_t input_zero_point, double output_scale,
                   int64_t output_zero_point, OptDtype output_dtype, at::IntArrayRef output_size,
                   std::string_view mode, bool align_corners, at::ArrayRef<double> scale_factors) {
  const char* op = "interpolate";
  const Arg arg{op, "input"};
  kernels::Operand operand =
      check_operand(arg, {op, "input_scale"}, {op, "input_zero_point"}, input, input_scale, input_zero_point);
  OutputFinish out;
  check_output(op, input.scalar_type(), output_scale, output_zero_point, output_dtype, "", {}, &out);
  const bool linear = mode == "bilinear";
  TAE_CHECK_VALUE(linear || mode == "nearest", (Arg{op, "mode"}), "be 'nearest' or 'bilinear'",
                  c10::str("'", mode, "'"));
  const Grid grid = check_grid(op, input, output_size, scale_factors);
  if (linear) check_rank(arg, input, 4);
  TAE_CHECK_VALUE(linear || !align_corners, (Arg{op, "align_corners"}), "be False without mode 'bilinear'",
                  "True");
  const int64_t numel = check_numel(arg, grid.sizes, c10::elementSize(out.dtype));
  const Tensor output = empty_strided(arg, grid.sizes, channels_last_strides(grid.sizes), out.dtype);
  if (numel == 0) return output;
  const Tensor source = channels_last(arg, input);
  const bool in_steps = linear && out.finish.dtype == operand.dtype && output_scale == input_scale &&
                        output_zero_point == input_zero_point;
  if (in_steps) operand.scale = out.finish.inverse_scale = 1.f;
  // No structured binding: clang 14 lets no lambda use one.
  const auto &depth = grid.axes[0], &height = grid.axes[1], &width = grid.axes[2];
  const uint8_t* src = static_cast<const uint8_t*>(source.const_data_ptr());
  uint8_t* dst = static_cast<uint8_t*>(output.mutable_data_ptr());
  const int64_t channels = input.size(1), step = channels * size_of_element(output);
  const kernels::DoubleLines double_lines = kernels::double_lines(best_isa());
  if (in_steps && !align_corners && doubles(height) && doubles(width) && double_lines != nullptr) {
    double_images(double_lines, operand, src, input.size(0), height, width, channels, dst);
    return output;
  }
  const std::vector<Position> z = positions(arg, depth, false, false),
                              y = positions(arg, height, linear, align_corners),
                              x = positions(arg, width, linear, align_corners);
  const kernels::ElementwiseKernels& k = kernels::elementwise_kernels(best_isa());
  ByteTable table = {};
  if (is_quantized(out.finish.dtype)) table = requantize_table(operand, out);
  const bool copies = is_quantized(out.finish.dtype) && is_identity(table);
  const auto row_at = [&](int64_t line, int64_t column) {
    return src + (line * width.size + column) * channels;
  };
  const int64_t lines = numel / (channels * width.out);
  const int64_t grain = std::max<int64_t>(1, kElementGrain / (channels * width.out));
  parallel_for(lines, grain, [&](int64_t begin, int64_t end) {
    for (int64_t l = begin; l < end; ++l) {
      const int64_t n = l / (height.out * depth.out);
      const Position &p = y[l % height.out], &q = z[l / height.out % depth.out];
      const int64_t plane = (n * depth.size + q.first) * height.size;
      uint8_t* to = dst + l * width.out * step;
      if (!linear && l > begin && l % height.out > 0 && y[l % height.out - 1].first == p.first) {
        std::memcpy(to, to - width.out * step, static_cast<size_t>(width.out * step));
        continue;
      }
      for (int64_t o = 0; o < width.out; ++o, to += step) {
        if (linear) {
          const void* rows[4] = {row_at(plane + p.first, x[o].first), row_at(plane + p.first, x[o].second),
                                 row_at(plane + p.second, x[o].first), row_at(plane + p.second, x[o].second)};
          k.blend_rows(out.finish, operand, rows, p.weight, x[o].weight, channels, to);
          continue;
        }
        const uint8_t* from = row_at(plane + p.first, x[o].first);
        if (copies) {
          std::memcpy(to, from, static_cast<size_t>(channels));
        } else {
          kernels::Operand part = operand;
          part.data = from;
          k.requantize(out.finish, part, channels, to);
        }
      }
    }
  });
  return output;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(torch_ao, m) {
  m.def(
      "interpolate(Tensor input, float input_scale, int input_zero_point, float output_scale, "
      "int output_zero_point, ScalarType? output_dtype, SymInt[] output_size, str mode='nearest', "
      "bool align_corners=False, float[] scale_factors=[]) -> Tensor");
}

TORCH_LIBRARY_IMPL(torch_ao, CompositeExplicitAutograd, m) {
  m.impl("interpolate", TORCH_FN((OfSizes<interpolate>::call)));
}

TORCH_LIBRARY_IMPL(torch_ao, Autograd, m) {
  m.impl("interpolate", TORCH_FN((InferenceOnlyOfSizes<"interpolate", interpolate>::call)));
}

}  // namespace tae
