// Dilated convolution, one tap at a time: its rows are pixels of the input as it lies, and
// where a tap reads outside, nothing is multiplied. Kernels that reach past much of the
// image, as a dilation of 12 on 28 pixels, have half of their taps there.
#include <algorithm>
#include <cstring>
#include <vector>

#include "engines/input_rows.h"
#include "engines/native/conv_pixels.h"
#include "kernels/rows.h"

namespace tae {
namespace {

using kernels::GemmBlock;
using kernels::GemmKernels;
using kernels::kPanelColumns;
using kernels::PackedWeight;

// The sums of a tap pass through memory: fewer products each than this do not pay for that.
constexpr int64_t kFewestChannels = 64;
// A line is cut into blocks of rows: shorter ones leave register tiles half empty.
constexpr int64_t kShortestLine = 7;

class DilatedConv final : public NativeConv {
 public:
  DilatedConv(const ConvProblem& p, Isa isa)
      : NativeConv(p, isa),
        gemm_(kernels::gemm_kernels(isa)),
        rows_(kernels::row_kernels(isa)),
        weight_(std::make_shared<PackedWeight>(p.rows.weight, n_, k_)),
        tap_sums_(sum_taps(p)),
        gather_(make_gather(p, isa, weight_)) {}

  static bool fits(const ConvProblem& p, Isa isa);
  void run(const ConvArgs& args) const override;
  std::string description() const override {
    return std::string("native ") + name_of(isa_) + " dilated " + gemm_.name;
  }
  size_t packed_bytes() const override {
    return output_.bytes() + 4 * tap_sums_.size() + gather_->packed_bytes();
  }

 private:
  struct Image {
    const uint8_t* data;  // in the u8 domain
    const int32_t* zero;  // tap_sums_ times the zero point
  };
  // Output rows [from, to) of a block, in which a tap reads inside the input, the first at `data`.
  struct Inside {
    int64_t from, to;
    const uint8_t* data;
  };
  std::vector<int32_t> sum_taps(const ConvProblem& p) const;
  Inside inside(const ConvArgs& args, const uint8_t* input, const int64_t (&output)[4], int64_t rows,
                const int64_t (&tap)[3]) const;
  void multiply_block(const ConvArgs& args, const Image& image, const int64_t (&output)[4], int64_t rows,
                      int64_t panel, int32_t* tile) const;
  void multiply_line(const ConvArgs& args, const Image& image, int64_t line, int64_t first_panel,
                     int64_t last_panel, int32_t* tile) const;

  const GemmKernels& gemm_;
  const kernels::RowKernels& rows_;
  PackedWeightPtr weight_;
  std::vector<int32_t> tap_sums_;  // [taps][64 * panels]: sums over the channels
  ConvImplPtr gather_;             // for short lines and large inputs
};

bool DilatedConv::fits(const ConvProblem& p, Isa isa) {
  const ConvGeometry& g = p.geometry;
  const GemmKernels& gemm = kernels::gemm_kernels(isa);
  if (g.transposed || g.groups != 1 || has_weight_zero_point(p.rows)) return false;
  if (g.in_channels < kFewestChannels || g.in_channels % (4 * gemm.quad_multiple) != 0) return false;
  return gemm.row_multiple == 1 && g.dilation[2] > 1 && g.kernel[2] > 1;
}

std::vector<int32_t> DilatedConv::sum_taps(const ConvProblem& p) const {
  const int64_t taps = geometry_.taps(), channels = geometry_.in_channels;
  const int64_t columns = weight_->panels() * kPanelColumns;
  std::vector<int32_t> sums(static_cast<size_t>(taps * columns));
  for (int64_t n = 0; n < n_; ++n)
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t c = 0; c < channels; ++c)
        sums[static_cast<size_t>(t * columns + n)] += p.rows.weight[(n * taps + t) * channels + c];
  return sums;
}

// output: batch and position of the block's first row.
DilatedConv::Inside DilatedConv::inside(const ConvArgs& args, const uint8_t* input,
                                        const int64_t (&output)[4], int64_t rows,
                                        const int64_t (&tap)[3]) const {
  const ConvGeometry& g = geometry_;
  int64_t at[3];
  for (int axis = 0; axis < 3; ++axis)
    at[axis] = output[axis + 1] * g.stride[axis] - g.padding[axis] + tap[axis] * g.dilation[axis];
  for (int axis = 0; axis < 2; ++axis)
    if (at[axis] < 0 || at[axis] >= args.input_size[axis]) return {0, 0, nullptr};
  const int64_t step = g.stride[2];
  const int64_t from = at[2] < 0 ? std::min(rows, (-at[2] + step - 1) / step) : 0;
  const int64_t behind = args.input_size[2] - at[2];  // rows begin less than this after the first
  const int64_t to = behind <= 0 ? 0 : std::min(rows, (behind + step - 1) / step);
  if (from >= to) return {0, 0, nullptr};
  const int64_t line = (output[0] * args.input_size[0] + at[0]) * args.input_size[1] + at[1];
  return {from, to, input + (line * args.input_size[2] + at[2] + from * step) * g.in_channels};
}

// Sums of a block of rows in one panel. Where a tap is outside, `zero` has its sum: [taps][64 * panels].
void DilatedConv::multiply_block(const ConvArgs& args, const Image& image, const int64_t (&output)[4],
                                 int64_t rows, int64_t panel, int32_t* tile) const {
  const ConvGeometry& g = geometry_;
  const int64_t columns = weight_->panels() * kPanelColumns, quads = g.in_channels / 4;
  const auto each_tap = [&](const auto& body) {
    int64_t tap = 0;
    for (int64_t i = 0; i < g.kernel[0]; ++i)
      for (int64_t j = 0; j < g.kernel[1]; ++j)
        for (int64_t t = 0; t < g.kernel[2]; ++t, ++tap)
          body(tap, image.zero + tap * columns + panel * kPanelColumns,
               inside(args, image.data, output, rows, {i, j, t}));
  };
  const auto add = [](int32_t* to, const int32_t* from) {
    for (int64_t j = 0; j < kPanelColumns; ++j) to[j] += from[j];
  };
  int32_t outside[kPanelColumns] = {};
  each_tap([&](int64_t, const int32_t* zero, const Inside& in) {
    if (in.from == in.to) add(outside, zero);
  });
  for (int64_t r = 0; r < rows; ++r) std::copy_n(outside, kPanelColumns, tile + r * kPanelColumns);
  each_tap([&](int64_t tap, const int32_t* zero, const Inside& in) {
    if (in.from == in.to) return;
    for (int64_t r = 0; r < in.from; ++r) add(tile + r * kPanelColumns, zero);
    for (int64_t r = in.to; r < rows; ++r) add(tile + r * kPanelColumns, zero);
    GemmBlock b;
    b.a_stride = g.stride[2] * g.in_channels;
    b.c = tile + in.from * kPanelColumns;
    b.rows = in.to - in.from;
    b.columns = std::min(kPanelColumns, n_ - panel * kPanelColumns);
    b.accumulate = true;
    for (int64_t q = 0; q < quads; q += gemm_.k_block / 4) {
      b.a = in.data + 4 * q;
      b.b = weight_->panel(panel) + (tap * quads + q) * kernels::kQuadBytes;
      b.quads = std::min(gemm_.k_block / 4, quads - q);
      gemm_.block(b);
    }
  });
}

// The columns of some panels in one line of the output.
void DilatedConv::multiply_line(const ConvArgs& args, const Image& image, int64_t line, int64_t first_panel,
                                int64_t last_panel, int32_t* tile) const {
  const int64_t width = args.output_size[2];
  const kernels::EpilogueParams epilogue = output_.params(*weight_, args);
  const kernels::RowParams row = input_row(args);
  const int64_t plane = line / args.output_size[1];
  int64_t output[4] = {plane / args.output_size[0], plane % args.output_size[0], line % args.output_size[1],
                       0};
  for (int64_t panel = first_panel; panel < last_panel; ++panel)
    for (int64_t w = 0; w < width; w += gemm_.row_block) {
      output[3] = w;
      kernels::EpilogueTile t;
      t.raw = tile;
      t.raw_stride = kPanelColumns;
      t.rows = std::min(gemm_.row_block, width - w);
      t.n0 = panel * kPanelColumns;
      t.cols = std::min(kPanelColumns, n_ - t.n0);
      t.row = &row;
      t.row_step = 0;
      multiply_block(args, image, output, t.rows, panel, tile);
      place(&t, args, line * width + w, t.n0);
      epilogue_(epilogue, t);
    }
}

void DilatedConv::run(const ConvArgs& args) const {
  const bool too_large = flip_ != 0 && args.input_bytes > kMostCopiedBytes;
  if (args.output_size[2] < kShortestLine || too_large) return gather_->run(args);
  const int team = threads(args);
  const auto share = [&](int64_t count, const auto& body) {
    if (team == 1)
      body(0, count);
    else
      parallel_for(count, 1, body);
  };
  std::vector<int32_t> zero(tap_sums_);
  for (int32_t& sum : zero) sum *= input_row(args).zero_point;
  Image image{static_cast<const uint8_t*>(args.input), zero.data()};
  const ScratchMemory flipped(static_cast<size_t>(flip_ != 0 ? args.input_bytes : 0));
  if (flip_ != 0) {
    const int64_t bytes = args.input_size[2] * geometry_.in_channels;
    share(args.input_bytes / bytes, [&](int64_t begin, int64_t end) {
      const int64_t first = begin * bytes, count = (end - begin) * bytes;
      const int8_t* const from = static_cast<const int8_t*>(args.input) + first;
      rows_.shift_s8(from, count, flipped.data() + first, count);
    });
    image.data = flipped.data();
  }
  // Fewer lines than threads have use for: the columns are shared too.
  const int64_t lines = args.m / args.output_size[2], panels = weight_->panels();
  const int64_t column_tasks = lines < 2 * team ? std::min<int64_t>(panels, 2 * team) : 1;
  share(lines * column_tasks, [&](int64_t begin, int64_t end) {
    const ScratchMemory memory(static_cast<size_t>(gemm_.row_block * kPanelColumns * 4));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t part = task % column_tasks;
      multiply_line(args, image, task / column_tasks, panels * part / column_tasks,
                    panels * (part + 1) / column_tasks, reinterpret_cast<int32_t*>(memory.data()));
    }
  });
}

}  // namespace

ConvImplPtr make_dilated(const ConvProblem& p, Isa isa) {
  if (!DilatedConv::fits(p, isa)) return nullptr;
  return std::make_shared<DilatedConv>(p, isa);
}

}  // namespace tae
