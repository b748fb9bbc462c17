// Depthwise convolution on kernels/depthwise_lines.h: a task is some channels of one line of
// the output, in pieces whose expanded taps stay in L1.
#include "kernels/depthwise_lines.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/round_up.h"
#include "engines/input_rows.h"
#include "engines/native/conv_pixels.h"
#include "engines/native/depthwise_taps.h"
#include "kernels/gemm.h"
#include "kernels/requantize.h"

namespace tae {
namespace {

using kernels::EpilogueParams;
using kernels::EpilogueTile;
using kernels::kLineBlock;
using kernels::kLineTaps;
using kernels::LineProducts;
using kernels::TapLines;
using native::Plane;
using native::TapPlan;

constexpr int64_t kMostWhole = 320;           // channels that are one slice, whatever their number
constexpr int64_t kSlice = 256;               // of more channels
constexpr int64_t kExpandedBytes = 36 << 10;  // of a piece, but for the shortest
constexpr int64_t kShortestPiece = 8;         // pixels
constexpr int64_t kMostExpanded = 1 << 20;    // bytes of the shortest piece

struct alignas(64) CacheLine {
  uint8_t bytes[64];
};

class DepthwiseLines final : public NativeConv {
 public:
  DepthwiseLines(const ConvProblem& p, Isa isa);
  static bool fits(const ConvProblem& p, Isa isa);
  void run(const ConvArgs& args) const override;
  std::string description() const override {
    return std::string("native ") + name_of(isa_) + " depthwise lines";
  }
  size_t packed_bytes() const override {
    return output_.bytes() + sizeof(CacheLine) * memory_.size() + 4 * column_sum_.size();
  }

 private:
  struct Call;
  struct Scratch;
  int64_t slices() const { return ceil_div(n_, period_); }
  int64_t channel_at(int64_t i) const { return slices() == 1 ? i % n_ : i; }
  void set_constants(const kernels::RowParams& input, int32_t* start, float* scale) const;
  bool writes_bytes(const kernels::RowParams& input) const;
  int64_t piece_pixels(int64_t width) const;
  void run_channels(const ConvArgs& args) const;
  void run_line(const Call& call, const Scratch& scratch, int64_t line, int64_t slice) const;
  void expand(const Call& call, const Scratch& scratch, const Plane& plane, int64_t x, int64_t pixels,
              int64_t slice, uint8_t* expanded) const;
  bool in_turn(size_t plane) const;
  void expand_in_turn(const Call& call, const Scratch& scratch, size_t plane, int64_t x,
                      int64_t pixels) const;
  void multiply(const Call& call, const Scratch& scratch, int64_t m, int64_t pixels, int64_t slice) const;

  const kernels::LineKernels& kernels_;
  int64_t multiplier_;  // output channels of an input channel
  int64_t period_;      // channels of a slice
  int64_t stored_;      // values of each parameter: all slices, or the channels and 63 of them again
  TapPlan plan_;
  std::vector<int32_t> column_sum_;  // [n]
  std::vector<CacheLine> memory_;    // of the next five
  int8_t* weight_;                   // [group][stored][4]
  int32_t *start_, *zero_;           // [stored]
  float *scale_, *bias_;             // [stored]
  bool has_rule_;
  kernels::ByteRule rule_;
  double most_sum_ = 0, most_bias_ = 0;  // of any output's magnitude, for an input scale of 1
};

struct DepthwiseLines::Call {
  const ConvArgs& args;
  kernels::RowParams input;
  EpilogueParams epilogue;
  bool bytes;  // the kernel writes the output, not the epilogue
  const int32_t* start;
  const float* scale;
  int64_t pixels;  // of a piece
};

// One thread's working memory.
struct DepthwiseLines::Scratch {
  uint8_t* expanded;      // planes one after the other
  int64_t* plane_offset;  // [planes]
  int64_t* offset;        // [groups]
  const uint8_t** lines;  // [lines of the kernel]: of the input, null outside
  uint8_t* padding;       // pixels of zero points
  int32_t* sums;          // or null
};

DepthwiseLines::DepthwiseLines(const ConvProblem& p, Isa isa)
    : NativeConv(p, isa),
      kernels_(*kernels::line_kernels(isa)),
      multiplier_(n_ / geometry_.in_channels),
      period_(n_ <= kMostWhole ? n_ : kSlice),
      stored_(round_up(slices() == 1 ? n_ + kLineBlock - 1 : n_, kLineBlock)),
      plan_(geometry_),
      column_sum_(static_cast<size_t>(n_)) {
  geometry_.in_channels = n_;
  const int64_t groups = plan_.num_groups();
  const std::vector<int8_t> taps = plan_.taps_of(p.rows.weight, n_);
  memory_.resize(static_cast<size_t>((groups + 4) * 4 * stored_) / sizeof(CacheLine));  // zeros
  weight_ = reinterpret_cast<int8_t*>(memory_.data());
  start_ = reinterpret_cast<int32_t*>(weight_ + groups * stored_ * kLineTaps);
  zero_ = start_ + stored_;
  scale_ = reinterpret_cast<float*>(zero_ + stored_);
  bias_ = scale_ + stored_;
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < stored_; ++i)
      if (channel_at(i) < n_)
        std::copy_n(taps.data() + (g * n_ + channel_at(i)) * kLineTaps, kLineTaps,
                    weight_ + (g * stored_ + i) * kLineTaps);
  const EpilogueParams e = output_.params(kernels::PackedWeight(), {});
  for (int64_t n = 0; n < n_; ++n) {
    int64_t magnitude = 0;
    for (int64_t t = 0; t < k_; ++t) {
      column_sum_[static_cast<size_t>(n)] += p.rows.weight[n * k_ + t];
      magnitude += std::abs(int64_t{p.rows.weight[n * k_ + t]});
    }
    const double scale = std::fabs(double{e.weight_scale[n * e.weight_scale_stride]});
    most_sum_ = std::max(most_sum_, 255.0 * static_cast<double>(magnitude) * scale);
    if (e.bias != nullptr) most_bias_ = std::max(most_bias_, std::fabs(double{e.bias[n]}));
  }
  for (int64_t i = 0; i < stored_; ++i)
    if (e.bias != nullptr && channel_at(i) < n_) bias_[i] = e.bias[channel_at(i)];
  set_constants(input_row({}), start_, scale_);
  has_rule_ = kernels::make_byte_rule(e, &rule_);
}

bool DepthwiseLines::fits(const ConvProblem& p, Isa isa) {
  if (kernels::line_kernels(isa) == nullptr || p.geometry.transposed) return false;
  const TapPlan plan(p.geometry);
  const int64_t pixels = plan.num_planes() * kShortestPiece + plan.more();
  return pixels * kLineTaps * std::min(p.rows.n, kMostWhole) <= kMostExpanded;
}

// f32(acc) * (s_x * s_w), and the zero point inside the sum; see kernels/epilogue.h.
void DepthwiseLines::set_constants(const kernels::RowParams& input, int32_t* start, float* scale) const {
  const EpilogueParams e = output_.params(kernels::PackedWeight(), {});
  for (int64_t i = 0; i < stored_; ++i) {
    const int64_t n = channel_at(i);
    if (n >= n_) break;
    const uint32_t product =
        static_cast<uint32_t>(input.zero_point) * static_cast<uint32_t>(column_sum_[static_cast<size_t>(n)]);
    start[i] = static_cast<int32_t>(0u - product);
    scale[i] = input.scale * e.weight_scale[n * e.weight_scale_stride];
  }
}

bool DepthwiseLines::writes_bytes(const kernels::RowParams& input) const {
  const double most = most_sum_ * std::fabs(double{input.scale}) + most_bias_;
  return has_rule_ && most < kernels::kMostQuotient * 0.5 / rule_.inverse.high;
}

int64_t DepthwiseLines::piece_pixels(int64_t width) const {
  const int64_t columns = kExpandedBytes / (kLineTaps * period_) - plan_.more();
  const int64_t most = std::max(kShortestPiece, columns / plan_.num_planes());
  return ceil_div(width, ceil_div(width, most));
}

void DepthwiseLines::run(const ConvArgs& args) const {
  with_repeated_channels(args, multiplier_, [this](const ConvArgs& each) { run_channels(each); });
}

void DepthwiseLines::run_channels(const ConvArgs& args) const {
  const kernels::RowParams input = input_row(args);
  Call call{args,
            input,
            output_.params(kernels::PackedWeight(), args),
            writes_bytes(input),
            start_,
            scale_,
            piece_pixels(args.output_size[2])};
  call.epilogue.column_sum = column_sum_.data();
  const ScratchMemory constants(static_cast<size_t>(qparams_in_call() ? 8 * stored_ : 0));
  if (qparams_in_call()) {
    int32_t* const start = reinterpret_cast<int32_t*>(constants.data());
    float* const scale = reinterpret_cast<float*>(constants.data() + 4 * stored_);
    set_constants(input, start, scale);
    call.start = start;
    call.scale = scale;
  }
  const int64_t planes = plan_.num_planes(), groups = plan_.num_groups();
  const int64_t kernel_lines = geometry_.kernel[0] * geometry_.kernel[1];
  int64_t widest = 0, expanded_bytes = 0;
  for (const Plane& p : plan_.planes) {
    widest = std::max(widest, call.pixels + p.more);
    expanded_bytes += round_up((call.pixels + p.more) * period_ + kLineBlock, 16) * kLineTaps;
  }
  const int64_t padding_bytes = round_up(2 * widest * period_, 64);  // two planes in turn
  const int64_t sums_bytes = call.bytes ? 0 : round_up(call.pixels * period_ + kLineBlock, 16) * 4;
  const int64_t count = args.m / args.output_size[2] * slices();

  const auto body = [&](int64_t begin, int64_t end) {
    const ScratchMemory memory(static_cast<size_t>(expanded_bytes + padding_bytes + sums_bytes +
                                                   8 * (planes + groups + kernel_lines)));
    Scratch s{};
    s.expanded = memory.data();
    s.padding = s.expanded + expanded_bytes;
    uint8_t* next = s.padding + padding_bytes;
    if (!call.bytes) s.sums = reinterpret_cast<int32_t*>(next);
    next += sums_bytes;
    s.plane_offset = reinterpret_cast<int64_t*>(next);
    s.offset = s.plane_offset + planes;
    s.lines = reinterpret_cast<const uint8_t**>(s.offset + groups);
    std::memset(s.padding, input.zero_point ^ flip_, static_cast<size_t>(padding_bytes));  // as the input
    int64_t offset = 0;
    for (int64_t i = 0; i < planes; ++i) {
      s.plane_offset[i] = offset;
      const int64_t pixels = call.pixels + plan_.planes[static_cast<size_t>(i)].more;
      offset += round_up(pixels * period_ + kLineBlock, 16) * kLineTaps;
    }
    for (int64_t i = 0; i < groups; ++i) {
      const native::TapGroup& g = plan_.groups[static_cast<size_t>(i)];
      s.offset[i] = s.plane_offset[g.plane] + g.pixels * period_ * kLineTaps;
    }
    for (int64_t i = begin; i < end; ++i) run_line(call, s, i / slices(), i % slices());
  };
  if (args.m * k_ * n_ < kSerialConvWork)
    body(0, count);
  else
    parallel_for(count, 1, body);
}

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
  const auto run = [&](int64_t from, int64_t to) {
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
  for (int64_t u = 0; u < inside; ++u) run(u, u + 1);
  if (inside < outside) {
    TapLines one = t;
    if (stride == 1 && slices() == 1) {
      t.period = t.channels = (outside - inside) * n_;  // one run of values
    } else {
      t.pixels = outside - inside;
    }
    run(inside, outside);
    t = one;
  }
  for (int64_t u = outside; u < columns; ++u) run(u, u + 1);
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

}  // namespace

ConvImplPtr make_depthwise_lines(const ConvProblem& p, Isa isa) {
  if (!DepthwiseLines::fits(p, isa)) return nullptr;
  return std::make_shared<DepthwiseLines>(p, isa);
}

}  // namespace tae
