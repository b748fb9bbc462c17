// A task of a depthwise convolution: taps of a line expanded, multiplied, stored.
#include "engines/native/depthwise_lines_task.h"

#include <algorithm>

namespace tae::native {

using kernels::EpilogueTile;
using kernels::kLineTaps;
using kernels::LineProducts;
using kernels::TapLines;

void DepthwiseLines::run_line(const Call& call, const Scratch& scratch, int64_t line, int64_t slice) const {
  const ConvArgs& args = call.args;
  const ConvGeometry& g = geometry_;
  const int64_t width = args.output_size[2];
  const int64_t h = line % args.output_size[1], d = line / args.output_size[1] % args.output_size[0];
  const int64_t image = line / args.output_size[1] / args.output_size[0];
  const uint8_t* const input = static_cast<const uint8_t*>(args.input) + slice * period_;
  for (int64_t i = 0; i < g.kernel[0]; ++i)
    for (int64_t j = 0; j < g.kernel[1]; ++j) {
      const int64_t at_d = g.source(0, d, i, args.input_size[0]),
                    at_h = g.source(1, h, j, args.input_size[1]);
      const int64_t at = (image * args.input_size[0] + at_d) * args.input_size[1] + at_h;
      scratch.lines[i * g.kernel[1] + j] =
          at_d >= 0 && at_h >= 0 ? input + at * args.input_size[2] * n_ : nullptr;
    }
  for (int64_t x = 0; x < width; x += call.pixels) {
    const int64_t pixels = std::min(call.pixels, width - x);
    for (size_t i = 0; i < plan_.planes.size(); ++i)
      if (in_turn(i))
        expand_in_turn(call, scratch, i++, x, pixels);
      else
        expand(call, scratch, plan_.planes[i], x, pixels, slice, scratch.expanded + scratch.plane_offset[i]);
    multiply(call, scratch, line * width + x, pixels, slice);
  }
}

// The columns of a plane that output pixels [x, x + pixels) read.
void DepthwiseLines::expand(const Call& call, const Scratch& scratch, const Plane& plane, int64_t x,
                            int64_t pixels, int64_t slice, uint8_t* expanded) const {
  const int64_t stride = geometry_.stride[2], width = call.args.input_size[2];
  const int64_t columns = pixels + plane.more, reach = plane.column[plane.count - 1];
  const int64_t origin = x * stride + plane.residue - geometry_.padding[2];
  // Columns [inside, outside) have all taps between the input's ends.
  const int64_t inside = std::clamp<int64_t>(ceil_div(std::max<int64_t>(-origin, 0), stride), 0, columns);
  const int64_t room = width - reach - origin;
  const int64_t outside = std::clamp<int64_t>(room > 0 ? ceil_div(room, stride) : 0, inside, columns);
  TapLines t;
  t.count = plane.count;
  t.channels = std::min(period_, n_ - slice * period_);
  t.flip = flip_;
  const auto run = [&](int64_t from) {
    for (int i = 0; i < plane.count; ++i) {
      const uint8_t* const line = scratch.lines[plane.line[i]];
      const int64_t column = origin + from * stride + plane.column[i];
      const bool there = line != nullptr && column >= 0 && column < width;
      t.source[i] = there ? line + column * n_ : scratch.padding;
      t.step[i] = there ? stride * n_ : 0;
    }
    t.expanded = expanded + from * period_ * kLineTaps;
    kernels_.expand(t);
  };
  // From left to right: what is written behind a column belongs to the next.
  t.period = period_;
  t.pixels = 1;
  for (int64_t u = 0; u < inside; ++u) run(u);
  if (inside < outside) {
    TapLines one = t;
    if (stride == 1 && slices() == 1) {
      t.period = t.channels = (outside - inside) * n_;  // one run of values
    } else {
      t.pixels = outside - inside;
    }
    run(inside);
    t = one;
  }
  for (int64_t u = outside; u < columns; ++u) run(u);
}

// Whether this plane and the next hold the even and the odd columns of the same lines, with
// no gap: then they are expanded together, in whole blocks.
bool DepthwiseLines::in_turn(size_t plane) const {
  if (geometry_.stride[2] != 2 || slices() != 1 || n_ % 16 != 0) return false;
  if (plane + 1 >= plan_.planes.size()) return false;
  const Plane &even = plan_.planes[plane], &odd = plan_.planes[plane + 1];
  const bool one_column = even.column[even.count - 1] == 0 && odd.column[odd.count - 1] == 0;
  const bool same = even.count == odd.count && even.line[0] == odd.line[0];
  const int64_t longer = even.more - odd.more;
  return one_column && same && even.residue == 0 && odd.residue == 1 && (longer == 0 || longer == 1);
}

// As expand, for the planes of even and of odd columns.
void DepthwiseLines::expand_in_turn(const Call& call, const Scratch& scratch, size_t plane, int64_t x,
                                    int64_t pixels) const {
  const Plane &even = plan_.planes[plane], &odd = plan_.planes[plane + 1];
  const int64_t columns = 2 * pixels + even.more + odd.more, width = call.args.input_size[2];
  const int64_t origin = 2 * x - geometry_.padding[2];
  const int64_t inside = std::clamp<int64_t>(-origin, 0, columns);
  const int64_t outside = std::clamp<int64_t>(width - origin, inside, columns);
  const auto place = [&](int64_t column) {
    const int64_t offset = scratch.plane_offset[plane + static_cast<size_t>(column % 2)];
    return scratch.expanded + offset + column / 2 * period_ * kLineTaps;
  };
  TapLines t;
  t.count = even.count;
  t.channels = t.period = n_;
  t.flip = flip_;
  const auto pad = [&](int64_t begin, int64_t end) {
    t.pixels = 1;
    t.alternate = nullptr;
    std::fill_n(t.source, even.count, scratch.padding);
    for (int64_t i = begin; i < end; ++i) {
      t.expanded = place(i);
      kernels_.expand(t);
    }
  };
  pad(0, inside);
  if (inside < outside) {
    for (int i = 0; i < even.count; ++i) {
      const uint8_t* const line = scratch.lines[even.line[i]];
      t.source[i] = line != nullptr ? line + (origin + inside) * n_ : scratch.padding;
    }
    t.pixels = outside - inside;
    t.expanded = place(inside);
    t.alternate = place(inside + 1);
    kernels_.expand(t);
  }
  pad(outside, columns);
}

void DepthwiseLines::multiply(const Call& call, const Scratch& scratch, int64_t m, int64_t pixels,
                              int64_t slice) const {
  const int64_t first = slice * period_;
  LineProducts p;
  p.expanded = scratch.expanded;
  p.offset = scratch.offset;
  p.groups = plan_.num_groups();
  p.weight = weight_ + first * kLineTaps;
  p.weight_stride = stored_ * kLineTaps;
  p.period = period_;
  p.channels = std::min(period_, n_ - first);
  p.pixels = pixels;
  p.start = (call.bytes ? call.start : zero_) + first;
  p.scale = call.scale + first;
  p.bias = bias_ + first;
  p.rule = rule_;
  p.sums = scratch.sums;
  p.output_stride = n_;
  if (call.bytes) p.output = static_cast<uint8_t*>(call.args.output) + m * n_ + first;
  kernels_.multiply(p);
  if (call.bytes) return;
  EpilogueTile t;
  t.raw = scratch.sums;
  t.raw_stride = period_;
  t.rows = pixels;
  t.cols = p.channels;
  t.n0 = first;
  t.row = &call.input;
  t.row_step = 0;
  place(&t, call.args, m, first);
  epilogue_(call.epilogue, t);
}

}  // namespace tae::native
