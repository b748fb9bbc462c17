// Depthwise convolution on kernels/depthwise_lines.h: what a problem packs (depthwise_lines.cpp) and
// the work of a task (depthwise_lines_task.cpp): some channels of one line of the output, in pieces
// whose expanded taps stay in L1.
#pragma once

#include <string>
#include <vector>

#include "core/round_up.h"
#include "engines/input_rows.h"
#include "engines/native/conv_pixels.h"
#include "engines/native/depthwise_taps.h"
#include "engines/native/repeated_channels.h"
#include "kernels/depthwise_lines.h"
#include "kernels/requantize.h"

namespace tae::native {

using kernels::EpilogueParams;

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
  struct Call {
    const ConvArgs& args;
    kernels::RowParams input;
    EpilogueParams epilogue;
    bool bytes;  // the kernel writes the output, not the epilogue
    const int32_t* start;
    const float* scale;
    int64_t pixels;  // of a piece
  };
  // One thread's working memory.
  struct Scratch {
    uint8_t* expanded;      // planes one after the other
    int64_t* plane_offset;  // [planes]
    int64_t* offset;        // [groups]
    const uint8_t** lines;  // [lines of the kernel]: of the input, null outside
    uint8_t* padding;       // pixels of zero points
    int32_t* sums;          // or null
  };

  int64_t slices() const { return ceil_div(n_, period_); }
  int64_t channel_at(int64_t i) const { return slices() == 1 ? i % n_ : i; }
  void set_constants(const kernels::RowParams& input, int32_t* start, float* scale) const;
  bool writes_bytes(const kernels::RowParams& input) const;
  int64_t piece_pixels(int64_t width) const;
  void run_lines(const ConvArgs& args, Lines lines) const;
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

}  // namespace tae::native
