// What the native convolutions share: where the taps of each output pixel read, and where
// its results go.
#pragma once

#include <vector>

#include "core/parallel.h"
#include "engines/conv.h"
#include "engines/input_rows.h"
#include "engines/output_rule.h"
#include "kernels/epilogue.h"
#include "kernels/gemm.h"

namespace tae {

constexpr int64_t kSerialConvWork = 100'000;    // multiply-adds that one thread does sooner alone
constexpr int64_t kMostCopiedBytes = 64 << 20;  // of the input, at a time

// For each axis, output position and tap: the input position, -1 outside.
class Sources {
 public:
  Sources(const ConvGeometry& g, const ConvArgs& args) {
    for (int axis = 0; axis < 3; ++axis)
      for (int64_t out = 0; out < args.output_size[axis]; ++out)
        for (int64_t tap = 0; tap < g.kernel[axis]; ++tap)
          table_[axis].push_back(g.source(axis, out, tap, args.input_size[axis]));
  }
  const int64_t* at(int axis, int64_t out, int64_t taps) const { return table_[axis].data() + out * taps; }

 private:
  std::vector<int64_t> table_[3];
};

// The output pixels from one on, in memory order, and where their taps read.
class PixelWalk {
 public:
  PixelWalk(const ConvGeometry& g, const ConvArgs& args, const Sources& sources, int64_t m)
      : geometry_(g), args_(args), sources_(sources) {
    w_ = m % args.output_size[2];
    m /= args.output_size[2];
    h_ = m % args.output_size[1];
    m /= args.output_size[1];
    d_ = m % args.output_size[0];
    const int64_t pixels = args.input_size[0] * args.input_size[1] * args.input_size[2];
    image_bytes_ = pixels * g.in_channels;
    image_ = static_cast<const uint8_t*>(args.input) + m / args.output_size[0] * image_bytes_;
  }
  void next() {
    if (++w_ < args_.output_size[2]) return;
    w_ = 0;
    if (++h_ < args_.output_size[1]) return;
    h_ = 0;
    if (++d_ < args_.output_size[0]) return;
    d_ = 0;
    image_ += image_bytes_;
  }
  const uint8_t* image() const { return image_; }  // of the pixel's batch element
  // Input positions of the taps along an axis, -1 outside.
  const int64_t* d() const { return sources_.at(0, d_, geometry_.kernel[0]); }
  const int64_t* h() const { return sources_.at(1, h_, geometry_.kernel[1]); }
  const int64_t* w() const { return sources_.at(2, w_, geometry_.kernel[2]); }
  bool row_begins() const { return w_ == 0; }
  int64_t left_in_row() const { return args_.output_size[2] - w_; }

 private:
  const ConvGeometry& geometry_;
  const ConvArgs& args_;
  const Sources& sources_;
  int64_t d_, h_, w_;
  int64_t image_bytes_;
  const uint8_t* image_;
};

// The u8-domain zero point and everything else that the kinds share.
class NativeConv : public ConvImpl {
 public:
  NativeConv(const ConvProblem& p, Isa isa)
      : isa_(isa),
        geometry_(p.geometry),
        n_(p.rows.n),
        k_(p.rows.k),
        output_(p.rows),
        epilogue_(kernels::epilogue(isa)),
        flip_(p.rows.input_dtype == DType::qs8 ? 0x80 : 0),
        qparams_in_call_(p.rows.qparams_in_call),
        row_{p.rows.input_scale, p.rows.input_zero_point + (flip_ != 0 ? 128 : 0), 0} {}

  const char* engine() const override { return "native"; }

 protected:
  void place(kernels::EpilogueTile* t, const ConvArgs& args, int64_t m, int64_t column) const {
    output_.place(args, m * n_ + column, n_, t);
  }
  // Qparams of the input in the u8 domain.
  kernels::RowParams input_row(const ConvArgs& args) const {
    return qparams_in_call_ ? kernels::RowParams{args.input_scale, args.input_zero_point, 0} : row_;
  }
  bool qparams_in_call() const { return qparams_in_call_; }
  int threads(const ConvArgs& args) const { return args.m * k_ * n_ < kSerialConvWork ? 1 : num_threads(); }

  Isa isa_;
  ConvGeometry geometry_;
  int64_t n_, k_;
  OutputRule output_;
  const kernels::EpilogueFn epilogue_;
  uint8_t flip_;

 private:
  bool qparams_in_call_;
  kernels::RowParams row_;
};

using PackedWeightPtr = std::shared_ptr<const kernels::PackedWeight>;

// Whether the output pixels read one input pixel each, all of them inside.
bool is_pointwise(const ConvGeometry& g);
// A convolution of which that is true.
Result<ConvImplPtr> make_pointwise(const ConvProblem& p);
// Any geometry: rows are gathered. `whole`: the packed weight of one group, null to pack it.
ConvImplPtr make_gather(const ConvProblem& p, Isa isa, PackedWeightPtr whole);
// Rows are read from the input as it lies; null when the geometry has no such rows.
ConvImplPtr make_direct(const ConvProblem& p, Isa isa);
// The same, a tap at a time without those outside; null unless it is dilated.
ConvImplPtr make_dilated(const ConvProblem& p, Isa isa);
// One input channel a group, weights without zero point.
ConvImplPtr make_depthwise(const ConvProblem& p, Isa isa);
// The same a line at a time; null when the geometry or the ISA does not allow it.
ConvImplPtr make_depthwise_lines(const ConvProblem& p, Isa isa);

}  // namespace tae
