// Convolution on our own kernels.
//
// A 1x1 convolution without stride is the native linear. Depthwise has a kernel of its
// own. The rest gathers a block of rows (the input under each output pixel) that stays
// in L2 and multiplies it like linear does; the epilogue reads each int32 tile in L1.
#include "engines/conv.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/parallel.h"
#include "engines/input_rows.h"
#include "engines/output_rule.h"
#include "kernels/depthwise.h"
#include "kernels/epilogue.h"
#include "kernels/gemm.h"
#include "kernels/rows.h"

namespace tae {
namespace {

using kernels::EpilogueParams;
using kernels::EpilogueTile;
using kernels::GemmBlock;
using kernels::GemmKernels;
using kernels::kPanelColumns;
using kernels::PackedWeight;
using kernels::RowParams;

constexpr int64_t kSerialWork = 100'000;     // multiply-adds that one thread does sooner alone
constexpr int64_t kGatherBytes = 256 << 10;  // rows of one block

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t value, int64_t multiple) { return ceil_div(value, multiple) * multiple; }

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

// The u8-domain zero point and everything else that the two kinds share.
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
        row_{p.rows.input_scale, p.rows.input_zero_point + (flip_ != 0 ? 128 : 0), 0},
        pad_(static_cast<uint8_t>(p.rows.input_zero_point)) {}

  const char* engine() const override { return "native"; }

 protected:
  // Where the taps of one output pixel read.
  struct Pixel {
    const uint8_t* image;  // of its batch element
    const int64_t* d;
    const int64_t* h;
    const int64_t* w;
  };
  Pixel pixel_at(const ConvArgs& args, const Sources& sources, int64_t m) const {
    const int64_t w = m % args.output_size[2];
    m /= args.output_size[2];
    const int64_t h = m % args.output_size[1];
    m /= args.output_size[1];
    const int64_t d = m % args.output_size[0];
    const int64_t image = args.input_size[0] * args.input_size[1] * args.input_size[2];
    return {static_cast<const uint8_t*>(args.input) + m / args.output_size[0] * image * geometry_.in_channels,
            sources.at(0, d, geometry_.kernel[0]), sources.at(1, h, geometry_.kernel[1]),
            sources.at(2, w, geometry_.kernel[2])};
  }
  void place(EpilogueTile* t, const ConvArgs& args, int64_t m, int64_t column) const {
    const int64_t element = m * n_ + column;
    t->output = static_cast<uint8_t*>(args.output) + element * static_cast<int64_t>(size_of(output_.dtype()));
    t->output_stride = n_;
    if (args.other != nullptr)
      t->other =
          static_cast<const uint8_t*>(args.other) + element * static_cast<int64_t>(size_of(args.other_dtype));
    t->other_stride = n_;
  }
  int threads(const ConvArgs& args) const { return args.m * k_ * n_ < kSerialWork ? 1 : num_threads(); }

  Isa isa_;
  ConvGeometry geometry_;
  int64_t n_, k_;
  OutputRule output_;
  const kernels::EpilogueFn epilogue_;
  uint8_t flip_;
  RowParams row_;
  uint8_t pad_;  // the zero point as the input holds it
};

class GatherConv final : public NativeConv {
 public:
  GatherConv(const ConvProblem& p, Isa isa)
      : NativeConv(p, isa), gemm_(kernels::gemm_kernels(isa)), rows_(kernels::row_kernels(isa)) {
    for (int64_t g = 0; g < geometry_.groups; ++g) {
      const LinearProblem part = group_problem(p, g);
      weights_.emplace_back(part.weight, part.n, part.k);
    }
  }

  void run(const ConvArgs& args) const override;
  std::string description() const override {
    return std::string("native ") + name_of(isa_) + " gather " + gemm_.name;
  }
  size_t packed_bytes() const override {
    size_t bytes = output_.bytes();
    for (const PackedWeight& w : weights_) bytes += w.bytes();
    return bytes;
  }

 private:
  int64_t row_bytes() const { return weights_[0].k_pad() | kernels::kKMultiple; }
  int32_t copy(const uint8_t* src, int64_t count, uint8_t* dst) const;
  int32_t gather(const ConvArgs& args, const Pixel& at, int64_t group, uint8_t* row) const;
  void multiply(const ConvArgs& args, int64_t group, const uint8_t* rows, const RowParams* params, int64_t m0,
                int64_t count, int64_t panel, int32_t* tile) const;
  EpilogueParams group_params(const ConvArgs& args, int64_t group) const;

  const GemmKernels& gemm_;
  const kernels::RowKernels& rows_;
  std::vector<PackedWeight> weights_;  // of each group
};

// Returns the sum, but only where weight zero points need it.
int32_t GatherConv::copy(const uint8_t* src, int64_t count, uint8_t* dst) const {
  if (flip_ != 0) return rows_.shift_s8(reinterpret_cast<const int8_t*>(src), count, dst, count);
  if (output_.has_weight_zero_point()) return rows_.copy_u8(src, count, dst, count);
  std::memcpy(dst, src, static_cast<size_t>(count));
  return 0;
}

// Taps that lie side by side in memory are one copy.
int32_t GatherConv::gather(const ConvArgs& args, const Pixel& at, int64_t group, uint8_t* row) const {
  const ConvGeometry& geo = geometry_;
  const int64_t channels = geo.group_channels();
  uint32_t sum = 0;
  uint8_t* dst = row;
  const auto pad = [&](int64_t taps) {
    std::memset(dst, row_.zero_point, static_cast<size_t>(taps * channels));
    sum += static_cast<uint32_t>(taps * channels * row_.zero_point);
    dst += taps * channels;
  };
  for (int64_t i = 0; i < geo.kernel[0]; ++i)
    for (int64_t j = 0; j < geo.kernel[1]; ++j) {
      if (at.d[i] < 0 || at.h[j] < 0) {
        pad(geo.kernel[2]);
        continue;
      }
      const uint8_t* line =
          at.image + (at.d[i] * args.input_size[1] + at.h[j]) * args.input_size[2] * geo.in_channels;
      for (int64_t k = 0; k < geo.kernel[2];) {
        const int64_t first = at.w[k];
        int64_t run = 1;
        if (first < 0) {
          while (k + run < geo.kernel[2] && at.w[k + run] < 0) ++run;
          pad(run);
        } else {
          while (geo.groups == 1 && k + run < geo.kernel[2] && at.w[k + run] == first + run) ++run;
          sum += static_cast<uint32_t>(
              copy(line + first * geo.in_channels + group * channels, run * channels, dst));
          dst += run * channels;
        }
        k += run;
      }
    }
  std::memset(dst, 0, static_cast<size_t>(row + row_bytes() - dst));
  return static_cast<int32_t>(sum);
}

EpilogueParams GatherConv::group_params(const ConvArgs& args, int64_t group) const {
  const PackedWeight& weight = weights_[static_cast<size_t>(group)];
  EpilogueParams e = output_.params(weight, args);
  const int64_t first = group * weight.n();
  e.weight_scale += first * e.weight_scale_stride;
  if (e.bias != nullptr) e.bias += first;
  if (e.weight_zero_point != nullptr) e.weight_zero_point += first;
  return e;
}

// Output of `count` gathered rows in one panel of a group.
void GatherConv::multiply(const ConvArgs& args, int64_t group, const uint8_t* rows, const RowParams* params,
                          int64_t m0, int64_t count, int64_t panel, int32_t* tile) const {
  const PackedWeight& weight = weights_[static_cast<size_t>(group)];
  const EpilogueParams epilogue = group_params(args, group);
  const int64_t quads = round_up(ceil_div(k_, 4), gemm_.quad_multiple);
  const int64_t k_quads = gemm_.k_block / 4;
  const int64_t n0 = panel * kPanelColumns;
  for (int64_t r = 0; r < count; r += gemm_.row_block) {
    GemmBlock g;
    g.a_stride = row_bytes();
    g.c = tile;
    g.rows = std::min(gemm_.row_block, count - r);
    for (int64_t q = 0; q < quads; q += k_quads) {
      g.a = rows + r * row_bytes() + 4 * q;
      g.b = weight.panel(panel) + q * kernels::kQuadBytes;
      g.quads = std::min(k_quads, quads - q);
      g.accumulate = q != 0;
      gemm_.block(g);
    }
    EpilogueTile t;
    t.raw = tile;
    t.raw_stride = kPanelColumns;
    t.rows = g.rows;
    t.cols = std::min(kPanelColumns, weight.n() - n0);
    t.n0 = n0;
    t.row_step = output_.has_weight_zero_point() ? 1 : 0;
    t.row = params + r * t.row_step;
    place(&t, args, m0 + r, group * weight.n() + n0);
    epilogue_(epilogue, t);
  }
}

void GatherConv::run(const ConvArgs& args) const {
  const Sources sources(geometry_, args);
  const int team = threads(args);
  const int64_t panels = weights_[0].panels();
  const int64_t most =
      std::max(gemm_.row_block, kGatherBytes / row_bytes() / gemm_.row_unit * gemm_.row_unit);
  const int64_t share = round_up(ceil_div(args.m, team), gemm_.row_unit);
  const int64_t block = std::min(share, most);
  const int64_t blocks = ceil_div(args.m, block);
  // Fewer rows than threads have use for: the columns are shared too.
  const int64_t column_tasks = blocks * geometry_.groups < team ? std::min<int64_t>(panels, team) : 1;
  const int64_t tile_bytes = round_up(gemm_.row_block, gemm_.row_multiple) * kPanelColumns * 4;
  const int64_t param_bytes = round_up(block * static_cast<int64_t>(sizeof(RowParams)), 64);
  const int64_t rows_bytes = round_up(block, std::max(gemm_.row_multiple, gemm_.row_block)) * row_bytes();
  const int64_t tasks = blocks * geometry_.groups * column_tasks;

  const auto body = [&](int64_t begin, int64_t end) {
    const ScratchMemory memory(static_cast<size_t>(tile_bytes + param_bytes + rows_bytes));
    int32_t* const tile = reinterpret_cast<int32_t*>(memory.data());
    RowParams* const params = reinterpret_cast<RowParams*>(memory.data() + tile_bytes);
    uint8_t* const rows = memory.data() + tile_bytes + param_bytes;
    if (gemm_.begin != nullptr) gemm_.begin();
    for (int64_t task = begin; task < end; ++task) {
      const int64_t column = task % column_tasks;
      const int64_t group = task / column_tasks % geometry_.groups;
      const int64_t m0 = task / column_tasks / geometry_.groups * block;
      const int64_t count = std::min(block, args.m - m0);
      for (int64_t i = 0; i < count; ++i) {
        params[i] = row_;
        params[i].sum = gather(args, pixel_at(args, sources, m0 + i), group, rows + i * row_bytes());
      }
      for (int64_t panel = panels * column / column_tasks; panel < panels * (column + 1) / column_tasks;
           ++panel)
        multiply(args, group, rows, params, m0, count, panel, tile);
    }
    if (gemm_.end != nullptr) gemm_.end();
  };
  if (team == 1 || tasks == 1)
    body(0, tasks);
  else
    parallel_for(tasks, 1, body);
}

// One input and one output channel a group.
class DepthwiseConv final : public NativeConv {
 public:
  DepthwiseConv(const ConvProblem& p, Isa isa)
      : NativeConv(p, isa),
        kernel_(kernels::depthwise(isa)),
        strips_(ceil_div(n_, kernels::kDepthwiseChannels)),
        weight_(static_cast<size_t>(strips_ * k_ * kernels::kDepthwiseChannels)),
        column_sum_(static_cast<size_t>(n_)),
        padding_(static_cast<size_t>(n_), pad_) {
    for (int64_t n = 0; n < n_; ++n)
      for (int64_t t = 0; t < k_; ++t) {
        const int64_t strip = n / kernels::kDepthwiseChannels;
        const int64_t lane = n % kernels::kDepthwiseChannels;
        weight_[static_cast<size_t>((strip * k_ + t) * kernels::kDepthwiseChannels + lane)] =
            p.rows.weight[n * k_ + t];
        column_sum_[static_cast<size_t>(n)] += p.rows.weight[n * k_ + t];
      }
  }

  void run(const ConvArgs& args) const override;
  std::string description() const override { return std::string("native ") + name_of(isa_) + " depthwise"; }
  size_t packed_bytes() const override {
    return output_.bytes() + weight_.size() + 4 * column_sum_.size() + padding_.size();
  }

 private:
  kernels::DepthwiseFn kernel_;
  int64_t strips_;
  std::vector<int8_t> weight_;  // [strip][tap][64]
  std::vector<int32_t> column_sum_;
  std::vector<uint8_t> padding_;  // a pixel of zero points
};

void DepthwiseConv::run(const ConvArgs& args) const {
  constexpr int64_t kRows = 4;  // of the epilogue's register block
  const Sources sources(geometry_, args);
  EpilogueParams epilogue = output_.params(PackedWeight(), args);
  epilogue.column_sum = column_sum_.data();
  const int64_t stride = strips_ * kernels::kDepthwiseChannels;
  const ConvGeometry& geo = geometry_;

  const auto body = [&](int64_t begin, int64_t end) {
    const int64_t acc_bytes = kRows * stride * 4;
    const ScratchMemory memory(static_cast<size_t>(acc_bytes + k_ * static_cast<int64_t>(sizeof(void*))));
    int32_t* const acc = reinterpret_cast<int32_t*>(memory.data());
    const uint8_t** const taps = reinterpret_cast<const uint8_t**>(memory.data() + acc_bytes);
    for (int64_t m = begin; m < end; m += kRows) {
      const int64_t rows = std::min(kRows, end - m);
      for (int64_t r = 0; r < rows; ++r) {
        const Pixel at = pixel_at(args, sources, m + r);
        int64_t t = 0;
        for (int64_t i = 0; i < geo.kernel[0]; ++i)
          for (int64_t j = 0; j < geo.kernel[1]; ++j)
            for (int64_t k = 0; k < geo.kernel[2]; ++k) {
              const bool inside = at.d[i] >= 0 && at.h[j] >= 0 && at.w[k] >= 0;
              const int64_t pixel = (at.d[i] * args.input_size[1] + at.h[j]) * args.input_size[2] + at.w[k];
              // Taps outside cost a multiplication, but no branch in the kernel.
              taps[t++] = inside ? at.image + pixel * n_ : padding_.data();
            }
        kernel_({.taps = taps,
                 .num_taps = k_,
                 .channels = n_,
                 .flip = flip_,
                 .weight = weight_.data(),
                 .acc = acc + r * stride});
      }
      EpilogueTile t;
      t.raw = acc;
      t.raw_stride = stride;
      t.rows = rows;
      t.cols = n_;
      t.row = &row_;
      t.row_step = 0;
      place(&t, args, m, 0);
      epilogue_(epilogue, t);
    }
  };
  if (args.m * k_ * n_ < kSerialWork)
    body(0, args.m);
  else
    parallel_for(args.m, kRows, body);
}

// A convolution whose rows are the input's pixels.
class PointwiseConv final : public ConvImpl {
 public:
  explicit PointwiseConv(LinearImplPtr linear) : linear_(std::move(linear)) {}
  void run(const ConvArgs& args) const override { linear_->run(args); }
  const char* engine() const override { return linear_->engine(); }
  std::string description() const override { return linear_->description() + ", pointwise"; }
  size_t packed_bytes() const override { return linear_->packed_bytes(); }

 private:
  LinearImplPtr linear_;
};

// Not a transposed one: its output may be larger than the input (output_padding).
bool is_pointwise(const ConvGeometry& g) {
  if (g.transposed) return false;
  for (int axis = 0; axis < 3; ++axis)
    if (g.kernel[axis] != 1 || g.stride[axis] != 1 || g.padding[axis] != 0) return false;
  return g.groups == 1;
}

}  // namespace

Result<ConvImplPtr> make_conv_native(const ConvProblem& p) {
  const Isa isa = best_isa();
  if (is_pointwise(p.geometry)) {
    Result<LinearImplPtr> linear = make_linear_native(p.rows);
    if (!linear) return Refusal{linear.reason()};
    return ConvImplPtr(std::make_shared<PointwiseConv>(std::move(linear.value())));
  }
  const bool asymmetric = has_weight_zero_point(p.rows);
  const int64_t k_bound = asymmetric ? kMaxExactKAsymmetricWeight : kMaxExactK;
  if (p.rows.k > k_bound) return refuse("taps times channels ", p.rows.k, "; needs at most ", k_bound);
  if (!asymmetric && p.geometry.group_channels() == 1 && p.rows.n == p.geometry.groups)
    return ConvImplPtr(std::make_shared<DepthwiseConv>(p, isa));
  return ConvImplPtr(std::make_shared<GatherConv>(p, isa));
}

}  // namespace tae
