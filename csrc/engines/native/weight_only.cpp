// linear_weight_only on our own kernels: planes of the rows through the int8 GEMM.
//
// A task owns a range of rows and of weight panels. It brings as many rows as L2 holds
// into planes; each panel then meets all of them before the next one is read. 4-bit
// weights become int8 a group at a time, in L1.
#include "engines/weight_only.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/cpu_features.h"
#include "core/parallel.h"
#include "engines/input_rows.h"
#include "engines/native/plan.h"
#include "engines/native/weight4_pack.h"
#include "kernels/gemm.h"
#include "kernels/rows.h"
#include "kernels/vec_float_env.h"
#include "kernels/weight_only.h"

namespace tae {
namespace {

using kernels::GemmBlock;
using kernels::GemmKernels;
using kernels::kPanelColumns;
using kernels::PlaneRow;
using kernels::WeightOnlyRow;

constexpr int64_t kMostGroup = 128;
// Planes whose sums of one panel stay in L1.
constexpr int64_t kTilePlanes = 36;
// A kernel may touch rows behind the last.
constexpr int64_t kMostRowMultiple = 16;

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

class NativeWeightOnly final : public WeightOnlyImpl {
 public:
  NativeWeightOnly(const WeightOnlyProblem& p, Isa isa)
      : k_(p.k),
        n_(p.n),
        group_(p.group),
        planes_(p.input_bits / 8),
        bits_(p.bits),
        dtype_(p.dtype),
        isa_(isa),
        kernels_(kernels::weight_only_kernels(isa)),
        rows_(kernels::row_kernels(isa)),
        // A group of 32 or a few rows are not what AMX is good at.
        gemm_(kernels::gemm_kernels(isa == Isa::amx && p.bits == 4 ? Isa::avx512_vnni : isa)) {
    if (p.bits == 8) {
      weight8_ = kernels::PackedWeight(static_cast<const int8_t*>(p.weight), p.n, p.k);
      weight_scale_.assign(p.weight_scale, p.weight_scale + p.n);
    } else {
      weight4_ = native::PackedWeight4(p);
    }
    if (p.bias != nullptr) bias_.assign(p.bias, p.bias + p.n);
  }

  void run(const WeightOnlyArgs& args) const override;
  const char* engine() const override { return "native"; }
  std::string description() const override {
    std::string text = "native weight-only " + std::to_string(bits_) + " bit";
    if (group_ != 0) text += " in groups of " + std::to_string(group_);
    return text + ", " + std::to_string(8 * planes_) + "-bit rows, " + name_of(isa_) + " " + gemm_.name;
  }
  size_t packed_bytes() const override {
    return weight8_.bytes() + weight4_.bytes() + 4 * (weight_scale_.size() + bias_.size());
  }

 private:
  struct Scratch {
    float* v = nullptr;             // [tile rows][64]; one row: [64 * panels]
    int32_t* c = nullptr;           // [planes of a tile][64]
    int32_t* ones_c = nullptr;      // [64]: sums of the columns of an unpacked group
    int8_t* unpacked = nullptr;     // [group / 4][64][4]
    uint8_t* ones = nullptr;        // [group]
    int32_t* group_sums = nullptr;  // [rows of a set][groups]
    float* scales = nullptr;        // [rows of a set]
    uint8_t* rows = nullptr;        // [rows of a set][planes][row_bytes]
  };
  // Offsets of one thread's memory.
  class Layout {
   public:
    int64_t take(int64_t bytes) {
      const int64_t at = bytes_;
      bytes_ += round_up(bytes, 64);
      return at;
    }
    int64_t bytes() const { return bytes_; }

   private:
    int64_t bytes_ = 0;
  };

  int64_t panels() const { return bits_ == 8 ? weight8_.panels() : weight4_.panels(); }
  int64_t k_pad() const { return bits_ == 8 ? weight8_.k_pad() : weight4_.k_pad(); }
  // An odd number of cache lines, so that rows fall into different L1 sets.
  int64_t row_bytes() const { return round_up(k_pad(), 64) | 64; }
  bool as_s8() const { return bits_ == 4 && kernels_.rows4 != nullptr; }
  // Rows whose sums of one panel stay in L1.
  int64_t tile_rows() const { return kTilePlanes / planes_; }
  // A call of one row; its sums of all panels have room in Scratch::v.
  bool by_row(const WeightOnlyArgs& args) const {
    return args.m == 1 && (bits_ == 8 ? kernels_.row8 : kernels_.row4) != nullptr;
  }

  float to_planes(const WeightOnlyArgs& args, int64_t m, uint8_t* planes, int32_t* group_sums) const;
  void run_task(const WeightOnlyArgs& args, const Scratch& s, int64_t set_rows, int64_t r0, int64_t r1,
                int64_t p0, int64_t p1) const;
  void run_row(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t p0, int64_t p1) const;
  void run_panel8(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows, int64_t p) const;
  void run_panel4_s8(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows, int64_t p) const;
  void run_panel4(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows, int64_t p) const;
  void finish(const WeightOnlyArgs& args, float scale, const float* v, int64_t m, int64_t n0,
              int64_t count) const;

  int64_t k_;
  int64_t n_;
  int64_t group_;
  int planes_;
  int bits_;
  DType dtype_;
  Isa isa_;
  const kernels::WeightOnlyKernels& kernels_;
  const kernels::RowKernels& rows_;
  const GemmKernels& gemm_;
  kernels::PackedWeight weight8_;
  native::PackedWeight4 weight4_;
  std::vector<float> weight_scale_;  // 8 bit
  std::vector<float> bias_;
};

// Planes of row m, row_bytes() apart; returns its scale, NaN when it is not finite.
float NativeWeightOnly::to_planes(const WeightOnlyArgs& args, int64_t m, uint8_t* planes,
                                  int32_t* group_sums) const {
  const int64_t at = m * args.input_stride;
  const float* f32 = static_cast<const float*>(args.input) + at;
  const uint16_t* bf16 = static_cast<const uint16_t*>(args.input) + at;
  float low, high;
  if (dtype_ == DType::bf16)
    rows_.min_max_bf16(bf16, k_, &low, &high);
  else
    rows_.min_max_f32(f32, k_, &low, &high);
  if (std::isnan(low)) {
    std::memset(planes, 0, static_cast<size_t>(planes_ * row_bytes()));
    if (as_s8()) std::memset(group_sums, 0, static_cast<size_t>(weight4_.groups()) * sizeof(int32_t));
    return std::numeric_limits<float>::quiet_NaN();
  }
  const float largest = std::max(-low, high);
  const float step = largest / static_cast<float>(kernels::plane_limit(planes_));
  const float scale = largest == 0.f ? 1.f : std::max(step, std::numeric_limits<float>::min());
  PlaneRow row;
  row.planes = planes_;
  row.flip = as_s8() ? 0x80 : 0;
  row.inverse_scale = 1.f / scale;
  row.k = k_;
  row.k_pad = k_pad();
  row.high = planes;
  row.low = planes + row_bytes();
  if (dtype_ == DType::bf16)
    kernels_.to_planes_bf16(bf16, row);
  else
    kernels_.to_planes_f32(f32, row);
  if (as_s8()) kernels_.sum_groups(planes_, row.high, row.low, k_pad(), group_, group_sums);
  return scale;
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
  const float scale = to_planes(args, m, s.rows, s.group_sums);
  WeightOnlyRow row;
  row.planes = planes_;
  row.high = s.rows;
  row.low = s.rows + row_bytes();
  row.k_pad = k_pad();
  row.panels = p1 - p0;
  row.v = s.v;
  if (bits_ == 8) {
    row.weight = reinterpret_cast<const uint8_t*>(weight8_.panel(p0));
    row.panel_bytes = weight8_.panel_bytes();
    row.column_sum = weight8_.column_sum() + p0 * kPanelColumns;
    kernels_.row8(row);
  } else {
    row.weight = weight4_.panel(p0);
    row.panel_bytes = weight4_.panel_bytes();
    row.group = group_;
    row.group_sums = s.group_sums;
    kernels_.row4(row);
  }
  const int64_t n0 = p0 * kPanelColumns;
  finish(args, scale, s.v, m, n0, std::min(p1 * kPanelColumns, n_) - n0);
}

// `rows` rows from m, whose planes are in s.rows, times one panel.
void NativeWeightOnly::run_panel8(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows,
                                  int64_t p) const {
  const int64_t quads = round_up(round_up(k_, 4) / 4, gemm_.quad_multiple);
  const int64_t step = gemm_.k_block / 4;
  const int64_t n0 = p * kPanelColumns, columns = std::min(kPanelColumns, n_ - n0);
  for (int64_t r = 0; r < rows; r += tile_rows()) {
    const int64_t count = std::min(tile_rows(), rows - r);
    GemmBlock g;
    g.a_stride = row_bytes();
    g.rows = count * planes_;
    g.c = s.c;
    int64_t q = 0;
    do {  // once with k = 0 too: the sums are 0
      g.a = s.rows + r * planes_ * row_bytes() + 4 * q;
      g.b = weight8_.panel(p) + q * kernels::kQuadBytes;
      g.quads = std::min(step, quads - q);
      g.accumulate = q > 0;
      // The first tile draws the next part of the weights into L2.
      g.next = g.b + g.quads * kernels::kQuadBytes;
      g.next_bytes = r == 0 && (q + step < quads || p + 1 < panels())
                         ? std::min(step, q + step < quads ? quads - q - step : quads) * kernels::kQuadBytes
                         : 0;
      gemm_.block(g);
      q += step;
    } while (q < quads);
    for (int64_t i = 0; i < count; ++i) {
      const int32_t* c = s.c + i * planes_ * kPanelColumns;
      kernels_.combine8(planes_, c, c + kPanelColumns, weight8_.column_sum() + n0, s.v);
      finish(args, s.scales[r + i], s.v, m + r + i, n0, columns);
    }
  }
}

// The kernel unpacks in registers.
void NativeWeightOnly::run_panel4_s8(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows,
                                     int64_t p) const {
  const int64_t n0 = p * kPanelColumns, columns = std::min(kPanelColumns, n_ - n0);
  for (int64_t r = 0; r < rows; r += tile_rows()) {
    kernels::WeightOnlyGroup g;
    g.planes = planes_;
    g.rows = std::min(tile_rows(), rows - r);
    g.x_stride = row_bytes();
    g.sums_stride = weight4_.groups();
    g.group = group_;
    g.fetch = r == 0;
    g.v = s.v;
    std::memset(s.v, 0, static_cast<size_t>(g.rows * kPanelColumns) * sizeof(float));
    for (int64_t group = 0; group < weight4_.groups(); ++group) {
      g.x = s.rows + r * planes_ * row_bytes() + group * group_;
      g.group_sums = s.group_sums + r * weight4_.groups() + group;
      g.weight = weight4_.panel(p) + group * weight4_.block_bytes();
      kernels_.rows4(g);
    }
    for (int64_t i = 0; i < g.rows; ++i)
      finish(args, s.scales[r + i], s.v + i * kPanelColumns, m + r + i, n0, columns);
  }
}

// The GEMM multiplies a group that was unpacked into L1.
void NativeWeightOnly::run_panel4(const WeightOnlyArgs& args, const Scratch& s, int64_t m, int64_t rows,
                                  int64_t p) const {
  const int64_t n0 = p * kPanelColumns, columns = std::min(kPanelColumns, n_ - n0);
  std::memset(s.v, 0, static_cast<size_t>(rows * kPanelColumns) * sizeof(float));
  for (int64_t group = 0; group < weight4_.groups(); ++group) {
    const uint8_t* block = weight4_.panel(p) + group * weight4_.block_bytes();
    const float* scale = reinterpret_cast<const float*>(block + weight4_.weight_bytes());
    kernels_.unpack4(block, group_ / 8, s.unpacked);
    GemmBlock g;
    g.b = s.unpacked;
    g.quads = group_ / 4;
    g.a = s.ones;
    g.a_stride = group_;
    g.rows = 1;
    g.c = s.ones_c;
    gemm_.block(g);
    g.a_stride = row_bytes();
    g.c = s.c;
    for (int64_t r = 0; r < rows; r += tile_rows()) {
      const int64_t count = std::min(tile_rows(), rows - r);
      g.a = s.rows + r * planes_ * row_bytes() + group * group_;
      g.rows = count * planes_;
      g.next = reinterpret_cast<const int8_t*>(block) + weight4_.block_bytes();
      const bool last = group + 1 == weight4_.groups() && p + 1 == panels();
      g.next_bytes = r == 0 && !last ? weight4_.block_bytes() : 0;
      gemm_.block(g);
      for (int64_t i = 0; i < count; ++i) {
        const int32_t* c = s.c + i * planes_ * kPanelColumns;
        kernels_.accumulate4(planes_, c, c + kPanelColumns, s.ones_c, scale, s.v + (r + i) * kPanelColumns);
      }
    }
  }
  for (int64_t i = 0; i < rows; ++i) finish(args, s.scales[i], s.v + i * kPanelColumns, m + i, n0, columns);
}

void NativeWeightOnly::run_task(const WeightOnlyArgs& args, const Scratch& s, int64_t set_rows, int64_t r0,
                                int64_t r1, int64_t p0, int64_t p1) const {
  for (int64_t m = r0; m < r1; m += set_rows) {
    const int64_t rows = std::min(set_rows, r1 - m);
    if (by_row(args)) {
      run_row(args, s, m, p0, p1);
      continue;
    }
    for (int64_t i = 0; i < rows; ++i)
      s.scales[i] =
          to_planes(args, m + i, s.rows + i * planes_ * row_bytes(), s.group_sums + i * weight4_.groups());
    for (int64_t p = p0; p < p1; ++p) {
      if (bits_ == 8)
        run_panel8(args, s, m, rows, p);
      else if (as_s8())
        run_panel4_s8(args, s, m, rows, p);
      else
        run_panel4(args, s, m, rows, p);
    }
  }
}

void NativeWeightOnly::run(const WeightOnlyArgs& args) const {
  if (args.m == 0 || n_ == 0) return;
  const int64_t all_panels = panels();
  const native::Plan plan = native::make_plan(args.m, all_panels, std::max<int64_t>(1, planes_ * k_pad()),
                                              gemm_.row_unit, gemm_.row_multiple, num_threads());
  const int64_t row_planes = planes_ * row_bytes();
  // Rows whose planes half of L2 holds, shared out evenly: each set reads all weights again.
  const int64_t most_rows = std::max<int64_t>(16, l2_bytes() * 9 / 16 / row_planes);
  const int64_t sets = (plan.rows_per_task + most_rows - 1) / most_rows;
  const int64_t set_rows = (plan.rows_per_task + sets - 1) / sets;
  const int64_t most_panels = (all_panels + plan.column_tasks - 1) / plan.column_tasks;

  Layout l;
  const int64_t v = l.take(4 * kPanelColumns * (by_row(args) ? most_panels : bits_ == 4 ? set_rows : 1));
  const int64_t c = l.take(4 * kPanelColumns * (kTilePlanes + kMostRowMultiple));
  const int64_t ones_c = l.take(4 * kPanelColumns * kMostRowMultiple);
  const int64_t unpacked = l.take(bits_ == 4 ? kMostGroup * kPanelColumns : 0);
  const int64_t ones = l.take(bits_ == 4 ? kMostGroup * kMostRowMultiple : 0);
  const int64_t group_sums = l.take(4 * set_rows * weight4_.groups());
  const int64_t scales = l.take(4 * set_rows);
  const int64_t rows = l.take(set_rows * row_planes + kMostRowMultiple * row_bytes());
  const auto body = [&](int64_t begin, int64_t end) {
    const ScratchMemory memory(static_cast<size_t>(l.bytes()));
    uint8_t* base = memory.data();
    Scratch s;
    s.v = reinterpret_cast<float*>(base + v);
    s.c = reinterpret_cast<int32_t*>(base + c);
    s.ones_c = reinterpret_cast<int32_t*>(base + ones_c);
    s.unpacked = reinterpret_cast<int8_t*>(base + unpacked);
    s.ones = base + ones;
    s.group_sums = reinterpret_cast<int32_t*>(base + group_sums);
    s.scales = reinterpret_cast<float*>(base + scales);
    s.rows = base + rows;
    if (bits_ == 4) std::memset(s.ones, 1, static_cast<size_t>(group_));
    const kernels::DefaultFloatEnv env;
    if (gemm_.begin != nullptr) gemm_.begin();
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i = task / plan.column_tasks, j = task % plan.column_tasks;
      const int64_t r0 = i * plan.rows_per_task;
      run_task(args, s, set_rows, r0, std::min(r0 + plan.rows_per_task, args.m),
               all_panels * j / plan.column_tasks, all_panels * (j + 1) / plan.column_tasks);
    }
    if (gemm_.end != nullptr) gemm_.end();
  };
  if (plan.tasks() == 1)
    body(0, 1);
  else
    parallel_for(plan.tasks(), 1, body);
}

}  // namespace

Result<WeightOnlyImplPtr> make_weight_only_native(const WeightOnlyProblem& p) {
  if (p.bits == 8 && p.k > kMaxWeightOnlyK) return refuse("k ", p.k, "; needs k <= ", kMaxWeightOnlyK);
  return WeightOnlyImplPtr(std::make_shared<NativeWeightOnly>(p, best_isa()));
}

}  // namespace tae
