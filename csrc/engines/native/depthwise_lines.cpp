// Depthwise convolution on kernels/depthwise_lines.h: what is packed, and a call's cut into tasks.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/parallel.h"
#include "core/round_up.h"
#include "engines/native/depthwise_lines_task.h"
#include "kernels/gemm.h"

namespace tae {
namespace native {
namespace {

using kernels::kLineBlock;
using kernels::kLineTaps;

constexpr int64_t kMostWhole = 320;           // channels that are one slice, whatever their number
constexpr int64_t kSlice = 256;               // of more channels
constexpr int64_t kExpandedBytes = 36 << 10;  // of a piece, but for the shortest
constexpr int64_t kShortestPiece = 8;         // pixels
constexpr int64_t kMostExpanded = 1 << 20;    // bytes of the shortest piece

}  // namespace

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
  with_repeated_channels(geometry_, args, multiplier_,
                         [this](const ConvArgs& part, Lines lines) { run_lines(part, lines); });
}

void DepthwiseLines::run_lines(const ConvArgs& args, Lines lines) const {
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
  const int64_t first = lines.begin * slices(), count = lines.end * slices() - first;

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
      const TapGroup& g = plan_.groups[static_cast<size_t>(i)];
      s.offset[i] = s.plane_offset[g.plane] + g.pixels * period_ * kLineTaps;
    }
    for (int64_t i = begin; i < end; ++i) run_line(call, s, i / slices(), i % slices());
  };
  if ((lines.end - lines.begin) * args.output_size[2] * k_ * n_ < kSerialConvWork)
    body(first, first + count);
  else
    parallel_for(count, 1, [&](int64_t begin, int64_t end) { body(first + begin, first + end); });
}

}  // namespace native

ConvImplPtr make_depthwise_lines(const ConvProblem& p, Isa isa) {
  if (!native::DepthwiseLines::fits(p, isa)) return nullptr;
  return std::make_shared<native::DepthwiseLines>(p, isa);
}

}  // namespace tae
