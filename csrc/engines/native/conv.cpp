// Convolution on our own kernels.
//
// A 1x1 convolution is the native linear, on a copy of the pixels that a stride leaves. Depthwise has a
// kernel of its own. The rest gathers a block of rows (the input under each output pixel) that stays in L2
// and multiplies it like linear does; the epilogue reads each int32 tile in L1.
#include "engines/conv.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/round_up.h"
#include "engines/input_rows.h"
#include "engines/native/conv_pixels.h"
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

constexpr int64_t kGatherBytes = 256 << 10;  // rows of one block
constexpr int64_t kStep = 16;                // bytes of a step of a short copy
constexpr int64_t kShortCopy = 256;
constexpr int64_t kMostDepthwiseColumns = 8;

// Whether threads that take whole blocks have shares that differ by more than a tenth.
bool uneven(int64_t count, int64_t block, int64_t team) {
  const int64_t most = std::min(count, ceil_div(ceil_div(count, block), team) * block);
  return most * team * 10 > count * 11;
}

class GatherConv final : public NativeConv {
 public:
  GatherConv(const ConvProblem& p, Isa isa, PackedWeightPtr whole)
      : NativeConv(p, isa), gemm_(kernels::gemm_kernels(isa)), rows_(kernels::row_kernels(isa)) {
    if (whole != nullptr) {
      weights_.push_back(std::move(whole));
      return;
    }
    for (int64_t g = 0; g < geometry_.groups; ++g) {
      const LinearProblem part = group_problem(p, g);
      weights_.push_back(std::make_shared<PackedWeight>(part.weight, part.n, part.k));
    }
  }

  void run(const ConvArgs& args) const override;
  std::string description() const override {
    return std::string("native ") + name_of(isa_) + " gather " + gemm_.name;
  }
  size_t packed_bytes() const override {
    size_t bytes = output_.bytes();
    for (const PackedWeightPtr& w : weights_) bytes += w->bytes();
    return bytes;
  }

 private:
  int64_t row_bytes() const { return round_up(k_ + kStep, kernels::kKMultiple) | kernels::kKMultiple; }
  int32_t copy(const uint8_t* src, int64_t count, const uint8_t* end, uint8_t* dst) const;
  int32_t gather(const ConvArgs& args, const PixelWalk& at, int64_t group, int32_t zero_point,
                 uint8_t* row) const;
  void multiply(const ConvArgs& args, int64_t group, const uint8_t* rows, const RowParams* params, int64_t m0,
                int64_t count, int64_t panel, int32_t* tile) const;
  EpilogueParams group_params(const ConvArgs& args, int64_t group) const;

  const GemmKernels& gemm_;
  const kernels::RowKernels& rows_;
  std::vector<PackedWeightPtr> weights_;  // of each group
};

// Copies in steps of kStep bytes: writes less than kStep bytes behind the copy.
inline void copy_in_steps(const uint8_t* src, int64_t count, uint8_t* dst) {
  for (int64_t i = 0; i < count; i += kStep) std::memcpy(dst + i, src + i, kStep);
}

// Returns the sum, but only where weight zero points need it. Short copies run over: the
// bytes behind them in the row are written later, and `end` guards the input.
int32_t GatherConv::copy(const uint8_t* src, int64_t count, const uint8_t* end, uint8_t* dst) const {
  if (flip_ != 0) return rows_.shift_s8(reinterpret_cast<const int8_t*>(src), count, dst, count);
  if (output_.has_weight_zero_point()) return rows_.copy_u8(src, count, dst, count);
  if (count <= kShortCopy && end - src >= count + kStep) {
    copy_in_steps(src, count, dst);
  } else {
    std::memcpy(dst, src, static_cast<size_t>(count));
  }
  return 0;
}

// Taps that lie side by side in memory are one copy.
int32_t GatherConv::gather(const ConvArgs& args, const PixelWalk& at, int64_t group, int32_t zero_point,
                           uint8_t* row) const {
  const ConvGeometry& geo = geometry_;
  const int64_t* const at_d = at.d();
  const int64_t* const at_h = at.h();
  const int64_t* const at_w = at.w();
  const uint8_t* const end = static_cast<const uint8_t*>(args.input) + args.input_bytes;
  const int64_t channels = geo.group_channels();
  // Positions grow with the taps: with both ends in place, all taps of a line are one copy.
  const int64_t last = geo.kernel[2] - 1;
  const bool whole_line = geo.groups == 1 && !geo.transposed && at_w[0] >= 0 && at_w[last] == at_w[0] + last;
  uint32_t sum = 0;
  uint8_t* dst = row;
  const auto pad = [&](int64_t taps) {
    std::memset(dst, zero_point, static_cast<size_t>(taps * channels));
    sum += static_cast<uint32_t>(taps * channels * zero_point);
    dst += taps * channels;
  };
  for (int64_t i = 0; i < geo.kernel[0]; ++i)
    for (int64_t j = 0; j < geo.kernel[1]; ++j) {
      if (at_d[i] < 0 || at_h[j] < 0) {
        pad(geo.kernel[2]);
        continue;
      }
      const uint8_t* line =
          at.image() + (at_d[i] * args.input_size[1] + at_h[j]) * args.input_size[2] * geo.in_channels;
      for (int64_t k = 0; k < geo.kernel[2];) {
        const int64_t first = at_w[k];
        int64_t run = 1;
        if (k == 0 && whole_line) {
          run = geo.kernel[2];
          sum += static_cast<uint32_t>(copy(line + first * geo.in_channels, run * channels, end, dst));
          dst += run * channels;
        } else if (first < 0) {
          while (k + run < geo.kernel[2] && at_w[k + run] < 0) ++run;
          pad(run);
        } else {
          while (geo.groups == 1 && k + run < geo.kernel[2] && at_w[k + run] == first + run) ++run;
          sum += static_cast<uint32_t>(
              copy(line + first * geo.in_channels + group * channels, run * channels, end, dst));
          dst += run * channels;
        }
        k += run;
      }
    }
  std::memset(dst, 0, static_cast<size_t>(row + row_bytes() - dst));
  return static_cast<int32_t>(sum);
}

EpilogueParams GatherConv::group_params(const ConvArgs& args, int64_t group) const {
  const PackedWeight& weight = *weights_[static_cast<size_t>(group)];
  EpilogueParams e = output_.params(weight, args);
  const int64_t first = group * weight.n();
  e.weight_scale += first * e.weight_scale_stride;
  if (e.bias != nullptr) e.bias += first;
  if (e.slope != nullptr) e.slope += first;
  if (e.affine_weight != nullptr) {
    e.affine_weight += first;
    e.affine_bias += first;
  }
  if (e.weight_zero_point != nullptr) e.weight_zero_point += first;
  return e;
}

// Output of `count` gathered rows in one panel of a group.
void GatherConv::multiply(const ConvArgs& args, int64_t group, const uint8_t* rows, const RowParams* params,
                          int64_t m0, int64_t count, int64_t panel, int32_t* tile) const {
  const PackedWeight& weight = *weights_[static_cast<size_t>(group)];
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
  const RowParams input = input_row(args);
  const int team = threads(args);
  const int64_t panels = weights_[0]->panels();
  const int64_t most =
      std::max(gemm_.row_block, kGatherBytes / row_bytes() / gemm_.row_unit * gemm_.row_unit);
  const int64_t share = round_up(ceil_div(args.m, team), gemm_.row_unit);
  int64_t block = std::min(share, most);
  int64_t blocks = ceil_div(args.m, block);
  // Fewer rows than threads have use for: the columns are shared too.
  int64_t column_tasks = blocks * geometry_.groups < team ? std::min<int64_t>(panels, team) : 1;
  // Blocks of rows that keep one thread longer than the others, as 30 and 19 of 49 rows do:
  // the columns are shared instead, and each thread gathers all rows.
  if (column_tasks == 1 && geometry_.groups == 1 && args.m <= most && uneven(args.m, block, team) &&
      !uneven(panels, 1, team)) {
    block = args.m;
    blocks = 1;
    column_tasks = team;
  }
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
      PixelWalk pixel(geometry_, args, sources, m0);
      for (int64_t i = 0; i < count; ++i, pixel.next()) {
        params[i] = input;
        params[i].sum = gather(args, pixel, group, input.zero_point, rows + i * row_bytes());
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

// Groups of few columns leave a panel of 64 empty. Some of them side by side, with weights of 0
// for each other's channels, are one group that costs no more and gathers longer runs.
ConvProblem merge_groups(const ConvProblem& p, std::vector<int8_t>* weight) {
  const int64_t columns = p.rows.n / p.geometry.groups;
  int64_t count = std::max<int64_t>(1, kPanelColumns / columns);
  while (p.geometry.groups % count != 0) --count;
  if (count == 1 || p.rows.k * count > kMaxExactK) return p;
  ConvProblem merged = p;
  merged.geometry.groups = p.geometry.groups / count;
  merged.rows.k = p.rows.k * count;
  const int64_t taps = p.geometry.taps(), channels = p.geometry.group_channels();
  weight->resize(static_cast<size_t>(p.rows.n * merged.rows.k));
  for (int64_t n = 0; n < p.rows.n; ++n)
    for (int64_t t = 0; t < taps; ++t)
      std::copy_n(p.rows.weight + n * p.rows.k + t * channels, channels,
                  weight->data() + n * merged.rows.k + (t * count + n / columns % count) * channels);
  merged.rows.weight = weight->data();
  return merged;
}

}  // namespace

ConvImplPtr make_gather(const ConvProblem& p, Isa isa, PackedWeightPtr whole) {
  return std::make_shared<GatherConv>(p, isa, std::move(whole));
}

Result<ConvImplPtr> make_conv_native(const ConvProblem& p) {
  const Isa isa = best_isa();
  if (is_pointwise(p.geometry)) return make_pointwise(p);
  const bool asymmetric = has_weight_zero_point(p.rows);
  const int64_t k_bound = asymmetric ? kMaxExactKAsymmetricWeight : kMaxExactK;
  if (p.rows.k > k_bound) return refuse("taps times channels ", p.rows.k, "; needs at most ", k_bound);
  // With more columns a group than this, a GEMM is faster.
  const bool narrow = p.rows.n / p.geometry.groups <= kMostDepthwiseColumns && p.geometry.groups > 1;
  if (!asymmetric && p.geometry.group_channels() == 1 && narrow) return make_depthwise(p, isa);
  std::vector<int8_t> weight;
  const ConvProblem merged = asymmetric ? p : merge_groups(p, &weight);
  if (ConvImplPtr dilated = make_dilated(merged, isa)) return dilated;
  if (ConvImplPtr direct = make_direct(merged, isa)) return direct;
  return make_gather(merged, isa, nullptr);
}

}  // namespace tae
