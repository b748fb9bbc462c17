#include "engines/onednn/conv_piece.h"

#include <algorithm>

#include "core/round_up.h"

namespace tae::onednn {

bool is_flat(const ConvGeometry& g, int axis) {
  return g.kernel[axis] == 1 && g.stride[axis] == 1 && g.padding[axis] == 0 && g.dilation[axis] == 1;
}

bool is_pixels(const ConvGeometry& g) {
  return is_flat(g, 0) && is_flat(g, 1) && is_flat(g, 2) && !g.transposed;
}

ConvSpan span_of(const ConvGeometry& g, int axis, int64_t out) {
  const int64_t reach = (g.kernel[axis] - 1) * g.dilation[axis];
  const int64_t step = g.stride[axis], before = g.padding[axis];
  if (!g.transposed) return {-before, (out - 1) * step + reach + 1, 0};
  // Output o reads (o + before - tap * dilation) / step where that is a whole number.
  const int64_t low = before - reach;
  const int64_t first = std::min(low > 0 ? ceil_div(low, step) : -(-low / step), before / step);
  const int64_t padding = before - first * step;
  int64_t last = (out - 1 + before) / step;
  while ((last - first) * step + reach + 1 - out - padding < 0) ++last;
  return {first, last - first + 1, padding};
}

// About 200 pixels. A strided 1x1 wants 64 for each step.
ConvPieces::ConvPieces(const ConvSpec& spec) : spec_(spec) {
  ConvGeometry& g = spec_.geometry;
  const bool line = is_flat(g, 1) || is_flat(g, 2);
  for (int axis = 0; axis < 3; ++axis) {
    int64_t& out = spec_.output_size[axis];
    out = is_flat(g, axis) ? 1 : axis == 0 ? 4 : line ? 64 : 14;
    if (out > 1) out = round_up(out, g.stride[axis]);
  }
  if (is_flat(g, 1) && is_flat(g, 2)) spec_.output_size[2] = 256;
  for (int axis = 0; axis < 3; ++axis) {
    // A transposed piece begins at a multiple of the stride.
    const ConvSpan span = span_of(g, axis, spec_.output_size[axis]);
    first_[axis] = span.first;
    spec_.input_size[axis] = span.size;
    g.padding[axis] = span.padding;
  }
}

int64_t ConvPieces::count(const ConvArgs& args) const {
  int64_t pieces = args.batch;
  for (int axis = 0; axis < 3; ++axis) pieces *= ceil_div(args.output_size[axis], spec_.output_size[axis]);
  return pieces;
}

int64_t ConvPieces::input_bytes() const {
  return spec_.geometry.in_channels * spec_.input_size[0] * spec_.input_size[1] * spec_.input_size[2];
}

int64_t ConvPieces::outputs() const {
  return spec_.n * spec_.output_size[0] * spec_.output_size[1] * spec_.output_size[2];
}

ConvPieces::Place ConvPieces::place(const ConvArgs& args, int64_t piece) const {
  Place p;
  std::copy_n(spec_.input_size, 3, p.input.size);
  for (int axis = 2; axis >= 0; --axis) {
    const int64_t size = spec_.output_size[axis], step = spec_.geometry.stride[axis];
    const int64_t count = ceil_div(args.output_size[axis], size);
    const int64_t at = piece % count * size;
    piece /= count;
    p.output[axis] = at;
    p.size[axis] = std::min(size, args.output_size[axis] - at);
    p.input.first[axis] = first_[axis] + (spec_.geometry.transposed ? at / step : at * step);
  }
  p.input.batch = piece;
  return p;
}

}  // namespace tae::onednn
