// Depthwise convolution: a few pixels at a time, all channels of a pixel from its taps.
#include <algorithm>
#include <cstring>
#include <vector>

#include "core/round_up.h"
#include "engines/input_rows.h"
#include "engines/native/conv_pixels.h"
#include "engines/native/repeated_channels.h"
#include "kernels/depthwise.h"
#include "kernels/gemm.h"

namespace tae {
namespace {

using kernels::EpilogueParams;
using kernels::EpilogueTile;

constexpr int64_t kStrip = kernels::kDepthwiseChannels;
constexpr int64_t kAccBytes = 8 << 10;  // of the pixels that go through one epilogue
constexpr int64_t kRowUnit = 4;         // of the epilogue's register block

class DepthwiseConv final : public NativeConv {
 public:
  DepthwiseConv(const ConvProblem& p, Isa isa)
      : NativeConv(p, isa),
        kernels_(kernels::depthwise_kernels(isa)),
        taps_(round_up(k_, kernels_.tap_multiple)),
        together_(pixels_together()),
        stride_(together_ > 1 ? n_ : round_up(n_, kStrip)),
        weight_(static_cast<size_t>(round_up(n_, kStrip) * taps_)),
        column_sum_(static_cast<size_t>(n_)),
        multiplier_(n_ / geometry_.in_channels) {
    geometry_.in_channels = n_;
    kernels_.pack(p.rows.weight, n_, k_, weight_.data());
    if (together_ > 1) {
      std::vector<int8_t> repeated;
      for (int64_t i = 0; i < together_; ++i)
        repeated.insert(repeated.end(), p.rows.weight, p.rows.weight + n_ * k_);
      wide_weight_.resize(static_cast<size_t>(kStrip * taps_));
      kernels_.pack(repeated.data(), kStrip, k_, wide_weight_.data());
    }
    for (int64_t n = 0; n < n_; ++n)
      for (int64_t t = 0; t < k_; ++t) column_sum_[static_cast<size_t>(n)] += p.rows.weight[n * k_ + t];
  }

  void run(const ConvArgs& args) const override;
  void run_lines(const ConvArgs& args, native::Lines lines) const;
  std::string description() const override { return std::string("native ") + name_of(isa_) + " depthwise"; }
  size_t packed_bytes() const override {
    return output_.bytes() + weight_.size() + wide_weight_.size() + 4 * column_sum_.size();
  }

 private:
  int64_t pixels_together() const;
  bool find_taps(const ConvArgs& args, const PixelWalk& at, const uint8_t* padding,
                 const uint8_t** taps) const;

  const kernels::DepthwiseKernels& kernels_;
  int64_t taps_;                     // rounded up
  int64_t together_;                 // neighbours whose channels fill a strip
  int64_t stride_;                   // accumulators of a pixel
  std::vector<int8_t> weight_;       // packed
  std::vector<int8_t> wide_weight_;  // for pixels together
  std::vector<int32_t> column_sum_;
  int64_t multiplier_;  // output channels of an input channel
};

// Without stride, the channels of neighbours are neighbours in memory: 2 pixels of 32
// channels are one of 64.
int64_t DepthwiseConv::pixels_together() const {
  const bool fills = n_ == kStrip / 2 || n_ == kStrip / 4;
  return fills && !geometry_.transposed && geometry_.stride[2] == 1 ? kStrip / n_ : 1;
}

// Sets the pointers of a pixel's taps; true when all lie inside the input. Taps outside read
// `padding`, a pixel of zero points: they cost a multiplication, but no branch in the kernel.
bool DepthwiseConv::find_taps(const ConvArgs& args, const PixelWalk& at, const uint8_t* padding,
                              const uint8_t** taps) const {
  const int64_t *d = at.d(), *h = at.h(), *w = at.w();
  const ConvGeometry& g = geometry_;
  bool all = true;
  for (int64_t i = 0; i < g.kernel[0]; ++i)
    for (int64_t j = 0; j < g.kernel[1]; ++j) {
      const bool line = d[i] >= 0 && h[j] >= 0;
      const uint8_t* row = at.image() + (d[i] * args.input_size[1] + h[j]) * args.input_size[2] * n_;
      for (int64_t k = 0; k < g.kernel[2]; ++k) {
        const bool inside = line && w[k] >= 0;
        *taps++ = inside ? row + w[k] * n_ : padding;
        all = all && inside;
      }
    }
  return all;
}

void DepthwiseConv::run(const ConvArgs& args) const {
  native::with_repeated_channels(
      geometry_, args, multiplier_,
      [this](const ConvArgs& part, native::Lines lines) { run_lines(part, lines); });
}

void DepthwiseConv::run_lines(const ConvArgs& args, native::Lines lines) const {
  const Sources sources(geometry_, args);
  EpilogueParams epilogue = output_.params(kernels::PackedWeight(), args);
  epilogue.column_sum = column_sum_.data();
  // Between two pixels of a row with all taps inside, each tap moves by this much.
  const int64_t step = geometry_.transposed ? 0 : geometry_.stride[2] * n_;

  const kernels::RowParams input = input_row(args);
  const int64_t block = std::clamp(kAccBytes / (4 * stride_) / kRowUnit * kRowUnit, kRowUnit, 8 * kRowUnit);

  const auto body = [&](int64_t begin, int64_t end) {
    const int64_t acc_bytes = (block * stride_ + kStrip) * 4;  // a run writes whole strips
    const int64_t taps_bytes = taps_ * static_cast<int64_t>(sizeof(void*));
    const int64_t padding_bytes = round_up(n_, kStrip);
    const ScratchMemory memory(static_cast<size_t>(acc_bytes + taps_bytes + padding_bytes));
    int32_t* const acc = reinterpret_cast<int32_t*>(memory.data());
    const uint8_t** const taps = reinterpret_cast<const uint8_t**>(memory.data() + acc_bytes);
    uint8_t* const padding = memory.data() + acc_bytes + taps_bytes;
    std::memset(padding, input.zero_point ^ flip_, static_cast<size_t>(padding_bytes));  // as the input
    for (int64_t t = k_; t < taps_; ++t) taps[t] = padding;
    const kernels::DepthwisePixel pixel{taps, taps_, n_, flip_, weight_.data(), acc};
    PixelWalk walk(geometry_, args, sources, begin);
    bool inside = false;
    for (int64_t m = begin; m < end; m += block) {
      const int64_t rows = std::min(block, end - m);
      for (int64_t r = 0; r < rows;) {
        const int64_t* const w = walk.w();
        const int64_t line = geometry_.kernel[2];
        if (inside && step != 0 && !walk.row_begins() && w[line - 1] >= 0) {
          for (int64_t t = 0; t < k_; ++t) taps[t] += step;
        } else {
          inside = find_taps(args, walk, padding, taps);
        }
        kernels::DepthwisePixel p = pixel;
        p.acc = acc + r * stride_;
        const int64_t count = std::min({together_, rows - r, walk.left_in_row()});
        if (inside && together_ > 1 && count == together_ && w[count * line - 1] >= 0) {
          p.channels = kStrip;
          p.weight = wide_weight_.data();
          kernels_.run(p);
          for (int64_t t = 0; t < k_; ++t) taps[t] += (count - 1) * step;
          for (int64_t i = 0; i < count; ++i) walk.next();
          r += count;
        } else {
          kernels_.run(p);
          walk.next();
          ++r;
        }
      }
      EpilogueTile t;
      t.raw = acc;
      t.raw_stride = stride_;
      t.rows = rows;
      t.cols = n_;
      t.row = &input;
      t.row_step = 0;
      place(&t, args, m, 0);
      epilogue_(epilogue, t);
    }
  };
  const int64_t first = lines.begin * args.output_size[2], count = lines.end * args.output_size[2] - first;
  if (count * k_ * n_ < kSerialConvWork)
    body(first, first + count);
  else
    parallel_for(count, kRowUnit, [&](int64_t begin, int64_t end) { body(first + begin, first + end); });
}

}  // namespace

ConvImplPtr make_depthwise(const ConvProblem& p, Isa isa) {
  if (ConvImplPtr lines = make_depthwise_lines(p, isa)) return lines;
  return std::make_shared<DepthwiseConv>(p, isa);
}

}  // namespace tae
