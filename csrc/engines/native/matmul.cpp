// matmul on our own kernels.
//
// One parallel region a call. A task is a range of rows of one matrix times a group of
// panels; the thread packs the panels when the group changes, brings the rows into the u8
// domain and runs GEMM kernel and finish on tiles that stay in L1.
//
//   acc = sum (a - zp_a) (b - zp_b), a in u8, b in s8:
//       = raw - zp_a * column_sum - zp_b * (row_sum - k * zp_a)
#include "engines/matmul.h"

#include <algorithm>

#include "core/parallel.h"
#include "core/round_up.h"
#include "engines/input_rows.h"
#include "kernels/gemm.h"
#include "kernels/matmul.h"
#include "kernels/rows.h"

namespace tae {
namespace {

using kernels::GemmBlock;
using kernels::GemmKernels;
using kernels::kPanelColumns;

// AMX computes 16 rows whatever m is: for fewer than this the vector kernels win.
constexpr int64_t kAmxRows = 5;
// Multiply-adds below which a second thread costs more than it gives.
constexpr int64_t kTaskMacs = 100'000;
// Rows that a matrix may be cut into: packing its other operand again for fewer costs
// more than the threads gain.
constexpr int64_t kLeastRows = 48;
// Packed panels of a group, in bytes; they are read once for each tile of rows.
constexpr int64_t kGroupBytes = 128 << 10;

int32_t wrapped(int64_t value) { return static_cast<int32_t>(static_cast<uint64_t>(value)); }

class Matmul {
 public:
  Matmul(const MatmulProblem& p, Isa isa);
  void run() const;

 private:
  // One thread's working memory and what it holds.
  struct Scratch {
    uint8_t* ones = nullptr;         // [k_pad], where column sums are needed
    int8_t* panels = nullptr;        // [group][k_pad / 4][64][4]
    int32_t* column_term = nullptr;  // [64 * group]
    int32_t* tile = nullptr;         // [tile_rows][64 * group]
    int32_t* row_term = nullptr;     // [block_rows]
    uint8_t* rows = nullptr;         // [block_rows][row_bytes]
    int64_t packed = -1;             // matrix * groups + group
  };
  struct Layout {
    int64_t ones, panels, column_term, tile, row_term, rows, bytes;
  };

  void plan();
  Layout layout() const;
  Scratch place(uint8_t* memory) const;
  void run_task(Scratch& s, int64_t task) const;
  void pack(Scratch& s, int64_t matrix, int64_t first_panel, int64_t count) const;
  void place_rows(const Scratch& s, const uint8_t* source, int64_t count) const;
  void multiply(const Scratch& s, const uint8_t* rows, int64_t stride, int64_t count, int64_t panels) const;

  const MatmulProblem& p_;
  const Isa isa_;
  const GemmKernels& gemm_;
  const kernels::RowKernels& row_kernels_;
  const kernels::MatmulFinishFn finish_;
  kernels::MatmulFinish params_;
  int32_t a_zero_point_, b_zero_point_;  // in the u8 and the s8 domain
  int64_t quads_, k_quads_;              // of the whole k, of one block of it
  int64_t panels_;
  bool in_place_;  // the kernel reads the rows of a where they lie
  int64_t row_bytes_;
  int64_t group_ = 1, groups_ = 1;         // panels of a task, and their number
  int64_t task_rows_ = 0, row_tasks_ = 1;  // rows of a task, tasks of one group
  int64_t block_rows_ = 0, tile_rows_ = 0;
};

const GemmKernels& kernels_for(Isa isa, int64_t m) {
  return kernels::gemm_kernels(isa == Isa::amx && m < kAmxRows ? Isa::avx512_vnni : isa);
}

Matmul::Matmul(const MatmulProblem& p, Isa isa)
    : p_(p),
      isa_(isa),
      gemm_(kernels_for(isa, p.m)),
      row_kernels_(kernels::row_kernels(isa)),
      finish_(kernels::matmul_finish(isa)),
      a_zero_point_(p.a.zero_point + (p.a.dtype == DType::qs8 ? 128 : 0)),
      b_zero_point_(p.b.zero_point - (p.b.dtype == DType::qs8 ? 0 : 128)),
      quads_(round_up(ceil_div(p.k, 4), gemm_.quad_multiple)),
      panels_(ceil_div(p.n, kPanelColumns)) {
  params_.scale = p.a.scale * p.b.scale;
  params_.post_ops = p.post_ops.data();
  params_.num_post_ops = static_cast<int>(p.post_ops.size());
  params_.dtype = p.output_dtype;
  params_.output_scale = p.output_scale;
  params_.output_zero_point = p.output_zero_point;
  const int64_t k_blocks = std::max<int64_t>(1, ceil_div(4 * quads_, gemm_.k_block));
  k_quads_ = std::max<int64_t>(1, round_up(ceil_div(quads_, k_blocks), gemm_.quad_multiple));
  // u8 rows whose sums nobody needs, when the kernel reads nothing behind them.
  in_place_ =
      p.a.dtype == DType::qu8 && b_zero_point_ == 0 && p.k == 4 * quads_ && p.m % gemm_.row_multiple == 0;
  // An odd number of cache lines, so that rows of a tile fall into different L1 sets.
  row_bytes_ = round_up(4 * quads_, 64) | 64;
  plan();
}

void Matmul::plan() {
  const int64_t panel_bytes = std::max<int64_t>(1, quads_ * kernels::kQuadBytes);
  tile_rows_ = std::min(gemm_.row_block, p_.m);
  const int64_t tile_bytes = round_up(tile_rows_, gemm_.row_multiple) * kPanelColumns * 4;
  group_ =
      std::max<int64_t>(1, std::min({kGroupBytes / panel_bytes, gemm_.tile_bytes / tile_bytes, panels_}));
  groups_ = ceil_div(panels_, group_);
  task_rows_ = p_.m;
  const int threads = num_threads();
  const int64_t tasks = p_.batch * groups_;
  if (threads > 1 && tasks < 8 * threads && tasks % threads != 0 && p_.m >= 2 * kLeastRows) {
    const int64_t cuts = std::min(ceil_div(4 * threads, tasks), p_.m / kLeastRows);
    task_rows_ = round_up(ceil_div(p_.m, cuts), std::max(gemm_.row_unit, gemm_.row_multiple));
  }
  row_tasks_ = ceil_div(p_.m, task_rows_);
  const int64_t in_l2 = std::max<int64_t>(1, l2_bytes() / 4 / row_bytes_ / tile_rows_) * tile_rows_;
  block_rows_ = in_place_ ? task_rows_ : std::min(task_rows_, in_l2);
}

Matmul::Layout Matmul::layout() const {
  const int64_t block = round_up(block_rows_, gemm_.row_multiple);
  const int64_t tile = round_up(tile_rows_, gemm_.row_multiple);
  Layout l{};
  const auto next = [&l](int64_t bytes) {
    const int64_t at = l.bytes;
    l.bytes += round_up(bytes, 64);
    return at;
  };
  l.ones = next(a_zero_point_ != 0 ? 4 * quads_ : 0);
  l.panels = next(group_ * quads_ * kernels::kQuadBytes);
  l.column_term = next(group_ * kPanelColumns * 4);
  // Column sums are computed in the tile: row_multiple rows.
  l.tile = next(std::max(tile, gemm_.row_multiple) * group_ * kPanelColumns * 4);
  l.row_term = next(block * 4);
  l.rows = next(in_place_ ? 0 : block * row_bytes_);
  return l;
}

Matmul::Scratch Matmul::place(uint8_t* memory) const {
  const Layout l = layout();
  Scratch s;
  s.ones = memory + l.ones;
  s.panels = reinterpret_cast<int8_t*>(memory + l.panels);
  s.column_term = reinterpret_cast<int32_t*>(memory + l.column_term);
  s.tile = reinterpret_cast<int32_t*>(memory + l.tile);
  s.row_term = reinterpret_cast<int32_t*>(memory + l.row_term);
  s.rows = memory + l.rows;
  if (a_zero_point_ != 0) std::fill_n(s.ones, 4 * quads_, uint8_t{1});
  std::fill_n(s.column_term, group_ * kPanelColumns, 0);
  std::fill_n(s.row_term, block_rows_, 0);
  return s;
}

// Panels [first_panel, + count) of one matrix b, and zp_a times the sums of their columns:
// a row of ones times the panels.
void Matmul::pack(Scratch& s, int64_t matrix, int64_t first_panel, int64_t count) const {
  const MatmulOperand& b = p_.b;
  kernels::PanelSource source;
  source.k = p_.k;
  source.row_stride = b.row_stride;
  source.column_stride = b.column_stride;
  source.is_unsigned = b.dtype == DType::qu8;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t column = (first_panel + i) * kPanelColumns;
    source.data = b.data + b.offset[matrix] + column * b.column_stride;
    source.columns = std::min(p_.n - column, kPanelColumns);
    kernels::pack_panel(source, quads_, s.panels + i * quads_ * kernels::kQuadBytes, isa_);
  }
  if (a_zero_point_ == 0) return;
  multiply(s, s.ones, 0, 1, count);
  for (int64_t i = 0; i < count * kPanelColumns; ++i)
    s.column_term[i] = wrapped(int64_t{a_zero_point_} * s.tile[i]);
}

// Rows of a in the u8 domain, and what zp_b takes off them.
void Matmul::place_rows(const Scratch& s, const uint8_t* source, int64_t count) const {
  for (int64_t r = 0; r < count; ++r) {
    const uint8_t* row = source + r * p_.a.row_stride;
    uint8_t* to = s.rows + r * row_bytes_;
    const int32_t sum = p_.a.dtype == DType::qs8 ? row_kernels_.shift_s8(reinterpret_cast<const int8_t*>(row),
                                                                         p_.k, to, row_bytes_)
                                                 : row_kernels_.copy_u8(row, p_.k, to, row_bytes_);
    s.row_term[r] = wrapped(int64_t{b_zero_point_} * (sum - p_.k * a_zero_point_));
  }
}

// Raw sums of `count` rows and the packed panels, into the tile.
void Matmul::multiply(const Scratch& s, const uint8_t* rows, int64_t stride, int64_t count,
                      int64_t panels) const {
  for (int64_t i = 0; i < panels; ++i) {
    int64_t q = 0;
    do {
      GemmBlock g;
      g.a = rows + 4 * q;
      g.a_stride = stride;
      g.b = s.panels + (i * quads_ + q) * kernels::kQuadBytes;
      g.quads = std::min(quads_ - q, k_quads_);
      g.c = s.tile + i * kPanelColumns;
      g.c_stride = group_ * kPanelColumns;
      g.rows = count;
      g.accumulate = q != 0;
      gemm_.block(g);
      q += k_quads_;
    } while (q < quads_);
  }
}

void Matmul::run_task(Scratch& s, int64_t task) const {
  const int64_t unit = task / row_tasks_, matrix = unit / groups_, first = unit % groups_ * group_;
  const int64_t panels = std::min(panels_ - first, group_);
  if (s.packed != unit) pack(s, matrix, first, panels);
  s.packed = unit;
  const int64_t n0 = first * kPanelColumns, columns = std::min(p_.n - n0, panels * kPanelColumns);
  const int64_t begin = task % row_tasks_ * task_rows_, end = std::min(begin + task_rows_, p_.m);
  for (int64_t r0 = begin; r0 < end; r0 += block_rows_) {
    const int64_t count = std::min(end - r0, block_rows_);
    const uint8_t* source = p_.a.data + p_.a.offset[matrix] + r0 * p_.a.row_stride;
    if (!in_place_) place_rows(s, source, count);
    for (int64_t r = 0; r < count; r += tile_rows_) {
      kernels::MatmulTile t;
      t.rows = std::min(count - r, tile_rows_);
      if (in_place_) {
        multiply(s, source + r * p_.a.row_stride, p_.a.row_stride, t.rows, panels);
      } else {
        multiply(s, s.rows + r * row_bytes_, row_bytes_, t.rows, panels);
      }
      const int64_t element = (matrix * p_.m + r0 + r) * p_.n + n0;
      t.raw = s.tile;
      t.raw_stride = group_ * kPanelColumns;
      t.cols = columns;
      t.column_term = s.column_term;
      t.row_term = s.row_term + (in_place_ ? 0 : r);
      t.output = static_cast<uint8_t*>(p_.output) + element * static_cast<int64_t>(size_of(p_.output_dtype));
      t.output_stride = p_.n;
      finish_(params_, t);
    }
  }
}

void Matmul::run() const {
  const int64_t tasks = p_.batch * groups_ * row_tasks_;
  const int64_t bytes = layout().bytes;
  const auto body = [&](int64_t begin, int64_t end) {
    const ScratchMemory memory(static_cast<size_t>(bytes));
    Scratch s = place(memory.data());
    if (gemm_.begin != nullptr) gemm_.begin();
    for (int64_t task = begin; task < end; ++task) run_task(s, task);
    if (gemm_.end != nullptr) gemm_.end();
  };
  const int64_t macs = p_.m * p_.n * std::max<int64_t>(p_.k, 1);
  const int64_t grain = std::max<int64_t>(1, kTaskMacs * tasks / (macs * p_.batch));
  parallel_for(tasks, grain, body);
}

void run(const MatmulProblem& p) { Matmul(p, best_isa()).run(); }

}  // namespace

Result<MatmulRun> find_matmul_native(const MatmulProblem& p) {
  if (p.k > kMaxMatmulK) return refuse("k ", p.k, "; needs k <= ", kMaxMatmulK);
  return MatmulRun{run};
}

}  // namespace tae
