// linear_weight_only on our own kernels.
//
// A task owns a range of rows and of weight panels. It brings as many rows as L2 holds
// into planes, in tiles; each panel then meets all of them before the next one is read.
// Without kernels of their own, 4-bit weights become int8 a group at a time, in L1, and
// the int8 GEMM multiplies.
#include "engines/weight_only.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/cpu_features.h"
#include "core/parallel.h"
#include "core/round_up.h"
#include "engines/input_rows.h"
#include "engines/native/plan.h"
#include "engines/native/weight4_pack.h"
#include "kernels/gemm.h"
#include "kernels/vec_float_env.h"
#include "kernels/weight_only.h"

namespace tae {
namespace {

using kernels::GemmBlock;
using kernels::GemmKernels;
using kernels::kPanelColumns;
using kernels::kWeightOnlyRows;
using kernels::PlaneScales;

constexpr int64_t kMostGroup = 128;

// 0, 1, ...: the rows of high planes.
struct RowNumbers {
  uint8_t row[kWeightOnlyRows];
  constexpr RowNumbers() : row() {
    for (int64_t i = 0; i < kWeightOnlyRows; ++i) row[i] = static_cast<uint8_t>(i);
  }
};
constexpr RowNumbers kRowNumbers;

// Sums of [n][k] int8 over the groups of k: [n padded to panels][groups], panel by panel
// [groups][64].
std::vector<int32_t> group_sums(const WeightOnlyProblem& p) {
  const int64_t panels = round_up(p.n, kPanelColumns) / kPanelColumns, groups = p.groups();
  std::vector<int32_t> sums(static_cast<size_t>(panels * groups * kPanelColumns));
  parallel_for(p.n, 1 + (int64_t{1} << 16) / (p.k + 1), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int8_t* w = static_cast<const int8_t*>(p.weight) + n * p.k;
      for (int64_t g = 0; g < groups; ++g) {
        int32_t sum = 0;
        for (int64_t k = g * p.input_group(); k < std::min(p.k, (g + 1) * p.input_group()); ++k) sum += w[k];
        const int64_t panel = n / kPanelColumns;
        sums[static_cast<size_t>((panel * groups + g) * kPanelColumns + n % kPanelColumns)] = sum;
      }
    }
  });
  return sums;
}

class NativeWeightOnly final : public WeightOnlyImpl {
 public:
  NativeWeightOnly(const WeightOnlyProblem& p, Isa isa)
      : k_(p.k),
        n_(p.n),
        group_(p.input_group()),
        groups_(p.groups()),
        bits_(p.bits),
        input_bits_(p.input_bits),
        two_planes_below_(p.two_planes_below()),
        dtype_(p.dtype),
        isa_(isa),
        kernels_(kernels::weight_only_kernels(isa)),
        gemm_(kernels::gemm_kernels(std::min(isa, Isa::avx512_vnni))) {
    if (p.bits == 8) {
      weight8_ = kernels::PackedWeight(static_cast<const int8_t*>(p.weight), p.n, p.k, own_rows() ? 0x80 : 0);
      weight_scale_.assign(p.weight_scale, p.weight_scale + p.n);
      if (!own_rows()) group_sums_ = group_sums(p);
    } else {
      weight4_ = native::PackedWeight4(p);
    }
    if (p.bias != nullptr) bias_.assign(p.bias, p.bias + p.n);
  }

  void run(const WeightOnlyArgs& args) const override;
  const char* engine() const override { return "native"; }
  std::string description() const override {
    std::string text = "native weight-only " + std::to_string(bits_) + " bit";
    if (bits_ == 4) text += " in groups of " + std::to_string(group_);
    text += ", rows of " + std::to_string(input_bits_) + " bits in groups of " + std::to_string(group_);
    return text + ", " + name_of(isa_) + " " + (own_rows() ? kernels_.name : gemm_.name);
  }
  size_t packed_bytes() const override {
    return weight8_.bytes() + weight4_.bytes() +
           4 * (weight_scale_.size() + group_sums_.size() + bias_.size());
  }

 private:
  // Where the planes of a set of rows and their sums lie; one thread's memory, in bytes.
  struct Layout {
    int64_t set_rows = 0;
    int64_t tile_rows = 0;   // min(set_rows, kWeightOnlyRows)
    int64_t scales[4] = {};  // [tiles][groups][tile rows]: scale and start of high, of low planes
    int64_t low_row = 0;     // the same
    int64_t low_count = 0;   // [tiles][groups]
    int64_t planes[2] = {};  // [tiles][groups][tile rows][group]: bytes of high, of low planes
    int64_t row_scales = 0;  // [rows of a set]
    int64_t v = 0;           // [rows][64]; one row: [64 * panels]
    int64_t c = 0, ones_c = 0, unpacked = 0, ones = 0;  // of the GEMM's way
    int64_t bytes = 0;

    int64_t take(int64_t size) {
      const int64_t at = bytes;
      bytes += round_up(size, 64);
      return at;
    }
  };
  // The same as pointers.
  struct Scratch {
    int64_t set_rows, tile_rows;
    PlaneScales high_scales, low_scales;
    uint8_t* low_row;
    int32_t* low_count;
    uint8_t *high, *low;
    float *row_scales, *v;
    int32_t *c, *ones_c;
    int8_t* unpacked;
    uint8_t* ones;
  };

  int64_t panels() const { return bits_ == 8 ? weight8_.panels() : weight4_.panels(); }
  int64_t panel_bytes() const { return bits_ == 8 ? weight8_.panel_bytes() : weight4_.panel_bytes(); }
  int64_t block_bytes() const { return bits_ == 8 ? group_ * kPanelColumns : weight4_.block_bytes(); }
  const uint8_t* block(int64_t p, int64_t g) const {
    const uint8_t* panel =
        bits_ == 8 ? reinterpret_cast<const uint8_t*>(weight8_.panel(p)) : weight4_.panel(p);
    return panel + g * block_bytes();
  }
  bool own_rows() const { return kernels_.rows8 != nullptr; }
  // A call of one row; its sums of all panels have room in Scratch::v.
  bool by_row(const WeightOnlyArgs& args) const { return args.m == 1 && own_rows(); }

  Layout layout(const WeightOnlyArgs& args, int64_t set_rows, int64_t task_panels) const;
  static Scratch scratch(const Layout& l, uint8_t* base);
  void to_planes(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows) const;
  void run_task(const WeightOnlyArgs& args, const Scratch& s, int64_t r0, int64_t r1, int64_t p0,
                int64_t p1) const;
  void run_row(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t p0, int64_t p1) const;
  void run_panel(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows, int64_t p) const;
  void run_panel_gemm(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows, int64_t p) const;
  void add_plane_gemm(const Scratch& s, GemmBlock* block, const uint8_t* row, const float* scale,
                      const int32_t* column_sum, const float* weight_scale, float* v) const;
  void finish(const WeightOnlyArgs& args, float scale, const float* v, int64_t m, int64_t n0,
              int64_t count) const;

  int64_t k_;
  int64_t n_;
  int64_t group_;
  int64_t groups_;
  int bits_;
  int input_bits_;
  float two_planes_below_;
  DType dtype_;
  Isa isa_;
  const kernels::WeightOnlyKernels& kernels_;
  const GemmKernels& gemm_;  // where kernels_ have no rows8
  kernels::PackedWeight weight8_;
  native::PackedWeight4 weight4_;
  std::vector<float> weight_scale_;  // 8 bit
  std::vector<int32_t> group_sums_;  // 8 bit, for the GEMM: [panels][groups][64]
  std::vector<float> bias_;
};

// Rows m .. m + rows of x.
void NativeWeightOnly::to_planes(const WeightOnlyArgs& args, const Scratch& s, int64_t m,
                                 int64_t rows) const {
  const int64_t tiles = ceil_div(rows, s.tile_rows);
  std::memset(s.low_count, 0, static_cast<size_t>(tiles * groups_) * sizeof(int32_t));
  kernels::PlaneRow row;
  row.k = k_;
  row.group = group_;
  row.flip = own_rows() ? 0 : 0x80;
  row.offset = !own_rows() ? 0 : bits_ == 8 ? 128 : 8;
  row.two_planes_below = two_planes_below_;
  row.stride = s.tile_rows;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t tile = i / s.tile_rows, at = tile * groups_ * s.tile_rows, r = i % s.tile_rows;
    row.high = s.high + (at + r) * group_;
    row.high_scales = {s.high_scales.scale + at + r, s.high_scales.start + at + r};
    row.low = s.low + at * group_;
    row.low_scales = {s.low_scales.scale + at, s.low_scales.start + at};
    row.low_row = s.low_row + at;
    row.low_count = s.low_count + tile * groups_;
    row.row = static_cast<uint8_t>(r);
    const int64_t from = (m + i) * args.input_stride;
    s.row_scales[i] = dtype_ == DType::bf16
                          ? kernels_.to_planes_bf16(static_cast<const uint16_t*>(args.input) + from, row)
                          : kernels_.to_planes_f32(static_cast<const float*>(args.input) + from, row);
  }
}

void NativeWeightOnly::finish(const WeightOnlyArgs& args, float scale, const float* v, int64_t m, int64_t n0,
                              int64_t count) const {
  const float* weight_scale = weight_scale_.empty() ? nullptr : weight_scale_.data() + n0;
  const float* bias = bias_.empty() ? nullptr : bias_.data() + n0;
  if (dtype_ == DType::bf16)
    kernels_.finish_bf16(v, scale, weight_scale, bias, count,
                         static_cast<uint16_t*>(args.output) + m * n_ + n0);
  else
    kernels_.finish_f32(v, scale, weight_scale, bias, count, static_cast<float*>(args.output) + m * n_ + n0);
}

void NativeWeightOnly::run_row(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t p0,
                               int64_t p1) const {
  kernels::WeightOnlyRow row;
  row.groups = groups_;
  row.group = group_;
  row.high = s.high;
  row.low = s.low;
  row.high_scales = s.high_scales;
  row.low_scales = s.low_scales;
  row.low_count = s.low_count;
  row.weight = block(p0, 0);
  row.panel_bytes = panel_bytes();
  row.panels = p1 - p0;
  row.v = s.v;
  (bits_ == 8 ? kernels_.row8 : kernels_.row4)(row);
  const int64_t n0 = p0 * kPanelColumns;
  finish(args, s.row_scales[0], s.v, m, n0, std::min(p1 * kPanelColumns, n_) - n0);
}

// The planes of `rows` rows from m times one panel.
void NativeWeightOnly::run_panel(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows,
                                 int64_t p) const {
  const int64_t n0 = p * kPanelColumns, columns = std::min(kPanelColumns, n_ - n0);
  const auto run = bits_ == 8 ? kernels_.rows8 : kernels_.rows4;
  for (int64_t r = 0, at = 0; r < rows; r += s.tile_rows) {
    const int64_t count = std::min(s.tile_rows, rows - r);
    std::memset(s.v, 0, static_cast<size_t>(count * kPanelColumns) * sizeof(float));
    for (int64_t group = 0; group < groups_; ++group, at += s.tile_rows) {
      kernels::WeightOnlyGroup g;
      g.x = s.high + at * group_;
      g.x_stride = group_;
      g.rows = count;
      g.scale = s.high_scales.scale + at;
      g.start = s.high_scales.start + at;
      g.row = kRowNumbers.row;
      g.weight = block(p, group);
      g.group = group_;
      g.fetch = true;
      g.v = s.v;
      run(g);
      g.rows = s.low_count[at / s.tile_rows];
      if (g.rows == 0) continue;
      g.x = s.low + at * group_;
      g.scale = s.low_scales.scale + at;
      g.start = s.low_scales.start + at;
      g.row = s.low_row + at;
      g.fetch = false;
      run(g);
    }
    for (int64_t i = 0; i < count; ++i)
      finish(args, s.row_scales[r + i], s.v + i * kPanelColumns, m + r + i, n0, columns);
  }
}

// `block` is set but for the sums; scale [block->rows], v of the tile's first row.
void NativeWeightOnly::add_plane_gemm(const Scratch& s, GemmBlock* block, const uint8_t* row,
                                      const float* scale, const int32_t* column_sum,
                                      const float* weight_scale, float* v) const {
  block->c = s.c;
  gemm_.block(*block);
  for (int64_t i = 0; i < block->rows; ++i)
    kernels_.accumulate(s.c + i * kPanelColumns, column_sum, scale[i], weight_scale,
                        v + row[i] * kPanelColumns);
}

void NativeWeightOnly::run_panel_gemm(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows,
                                      int64_t p) const {
  const int64_t n0 = p * kPanelColumns, columns = std::min(kPanelColumns, n_ - n0);
  std::memset(s.v, 0, static_cast<size_t>(rows * kPanelColumns) * sizeof(float));
  for (int64_t group = 0; group < groups_; ++group) {
    const uint8_t* weight = block(p, group);
    const int32_t* column_sum = group_sums_.data() + (p * groups_ + group) * kPanelColumns;
    const float* weight_scale = nullptr;
    GemmBlock g;
    g.b = reinterpret_cast<const int8_t*>(weight);
    g.quads = group_ / 4;
    if (bits_ == 4) {
      kernels_.unpack4(weight, group_ / 8, s.unpacked);
      weight_scale = reinterpret_cast<const float*>(weight + weight4_.weight_bytes());
      g.b = s.unpacked;
      g.a = s.ones;
      g.a_stride = group_;
      g.rows = 1;
      g.c = s.ones_c;
      gemm_.block(g);
      column_sum = s.ones_c;
    }
    const bool last = group + 1 == groups_ && p + 1 == panels();
    g.next = reinterpret_cast<const int8_t*>(weight) + block_bytes();
    g.next_bytes = last ? 0 : block_bytes();
    for (int64_t r = 0, tile = 0; r < rows; r += s.tile_rows, ++tile) {
      const int64_t at = (tile * groups_ + group) * s.tile_rows;
      float* v = s.v + r * kPanelColumns;
      g.a = s.high + at * group_;
      g.a_stride = group_;
      g.rows = std::min(s.tile_rows, rows - r);
      add_plane_gemm(s, &g, kRowNumbers.row, s.high_scales.scale + at, column_sum, weight_scale, v);
      g.next_bytes = 0;
      g.rows = s.low_count[at / s.tile_rows];
      if (g.rows == 0) continue;
      g.a = s.low + at * group_;
      add_plane_gemm(s, &g, s.low_row + at, s.low_scales.scale + at, column_sum, weight_scale, v);
    }
  }
  for (int64_t i = 0; i < rows; ++i)
    finish(args, s.row_scales[i], s.v + i * kPanelColumns, m + i, n0, columns);
}

void NativeWeightOnly::run_task(const WeightOnlyArgs& args, const Scratch& s, int64_t r0, int64_t r1,
                                int64_t p0, int64_t p1) const {
  for (int64_t m = r0; m < r1; m += s.set_rows) {
    const int64_t rows = std::min(s.set_rows, r1 - m);
    to_planes(args, s, m, rows);
    if (by_row(args)) {
      run_row(args, s, m, p0, p1);
      continue;
    }
    for (int64_t p = p0; p < p1; ++p) {
      if (own_rows())
        run_panel(args, s, m, rows, p);
      else
        run_panel_gemm(args, s, m, rows, p);
    }
  }
}

NativeWeightOnly::Layout NativeWeightOnly::layout(const WeightOnlyArgs& args, int64_t set_rows,
                                                  int64_t task_panels) const {
  Layout l;
  l.set_rows = set_rows;
  l.tile_rows = std::min(set_rows, kWeightOnlyRows);
  const int64_t blocks = ceil_div(set_rows, l.tile_rows) * groups_;
  for (int64_t& at : l.scales) at = l.take(4 * blocks * l.tile_rows);
  l.low_row = l.take(blocks * l.tile_rows);
  l.low_count = l.take(4 * blocks);
  for (int64_t& at : l.planes) at = l.take(blocks * l.tile_rows * group_);
  l.row_scales = l.take(4 * set_rows);
  const int64_t v_rows = by_row(args) ? task_panels : own_rows() ? l.tile_rows : set_rows;
  l.v = l.take(4 * kPanelColumns * v_rows);
  if (!own_rows()) {
    l.c = l.take(4 * kPanelColumns * kWeightOnlyRows);
    l.ones_c = l.take(4 * kPanelColumns);
    l.unpacked = l.take(kMostGroup * kPanelColumns);
    l.ones = l.take(kMostGroup);
  }
  return l;
}

NativeWeightOnly::Scratch NativeWeightOnly::scratch(const Layout& l, uint8_t* base) {
  const auto floats = [base](int64_t at) { return reinterpret_cast<float*>(base + at); };
  const auto ints = [base](int64_t at) { return reinterpret_cast<int32_t*>(base + at); };
  Scratch s;
  s.set_rows = l.set_rows;
  s.tile_rows = l.tile_rows;
  s.high_scales = {floats(l.scales[0]), ints(l.scales[1])};
  s.low_scales = {floats(l.scales[2]), ints(l.scales[3])};
  s.low_row = base + l.low_row;
  s.low_count = ints(l.low_count);
  s.high = base + l.planes[0];
  s.low = base + l.planes[1];
  s.row_scales = floats(l.row_scales);
  s.v = floats(l.v);
  s.c = ints(l.c);
  s.ones_c = ints(l.ones_c);
  s.unpacked = reinterpret_cast<int8_t*>(base + l.unpacked);
  s.ones = base + l.ones;
  return s;
}

void NativeWeightOnly::run(const WeightOnlyArgs& args) const {
  if (args.m == 0 || n_ == 0) return;
  const int64_t all_panels = panels(), planes = input_bits_ / 8;
  const native::Plan plan =
      native::make_plan(args.m, all_panels, std::max<int64_t>(1, planes * groups_ * group_), gemm_.row_unit,
                        gemm_.row_multiple, num_threads());
  // Rows whose planes half of L2 holds, shared out evenly: each set reads all weights again.
  const int64_t most_rows =
      std::max<int64_t>(16, l2_bytes() * 9 / 16 / std::max<int64_t>(1, planes * groups_ * group_));
  const int64_t task_rows = std::min(plan.rows_per_task, args.m), sets = ceil_div(task_rows, most_rows);
  const Layout l = layout(args, ceil_div(task_rows, sets), ceil_div(all_panels, plan.column_tasks));
  const auto body = [&](int64_t begin, int64_t end) {
    const ScratchMemory memory(static_cast<size_t>(l.bytes));
    const Scratch s = scratch(l, memory.data());
    if (!own_rows()) std::memset(s.ones, 1, kMostGroup);
    const kernels::DefaultFloatEnv env;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i = task / plan.column_tasks, j = task % plan.column_tasks;
      const int64_t r0 = i * plan.rows_per_task;
      run_task(args, s, r0, std::min(r0 + plan.rows_per_task, args.m), all_panels * j / plan.column_tasks,
               all_panels * (j + 1) / plan.column_tasks);
    }
  };
  if (plan.tasks() == 1)
    body(0, 1);
  else
    parallel_for(plan.tasks(), 1, body);
}

}  // namespace

Result<WeightOnlyImplPtr> make_weight_only_native(const WeightOnlyProblem& p) {
  return WeightOnlyImplPtr(std::make_shared<NativeWeightOnly>(p, best_isa()));
}

}  // namespace tae
