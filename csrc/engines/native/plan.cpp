#include "engines/native/plan.h"

#include <algorithm>

#include "core/cpu_features.h"
#include "core/round_up.h"

namespace tae::native {
namespace {

// Multiply-adds below which a second thread costs more than it gives: opening a
// parallel region takes 1 to 3 us.
constexpr int64_t kTaskMacs = 100'000;

// Cycles per value of k on an AVX512-VNNI core; only their ratio matters.
constexpr double kRowPanelCost = 0.5;  // 64 columns of one row
constexpr double kRowCost = 0.4;       // quantizing a row: every task does it for itself
constexpr double kPanelCost = 4;       // drawing a panel into L2

// Rows that are best done as one tile, so that each panel is read once: 32x4096x4096
// takes 824 us as one tile of 32 rows and 1070 us as tiles of 12 (AVX512-VNNI).
constexpr int64_t kFewRows = 48;

// Most rows of one tile whose results are bytes, and bytes of them: 64 -> 256 channels take 10 % less in
// tiles of 48 rows than of 12, and with a sum 3 % less in tiles of 192.
constexpr int64_t kByteTileRows = 192, kByteTileInput = 16 << 10;

// Register tiles of a task from which on one of fewer rows costs no more than its share.
constexpr int64_t kManyTiles = 16;

}  // namespace

Plan make_plan(int64_t m, int64_t panels, int64_t k_pad, int64_t row_unit, int64_t row_multiple,
               int threads) {
  const int64_t macs = m * panels * kernels::kPanelColumns * k_pad;
  const int64_t useful = std::min<int64_t>(macs / kTaskMacs, threads);
  Plan best{1, 1, m};
  if (useful <= 1) return best;

  const int64_t units = ceil_div(m, row_unit);
  double least = 0;
  for (int64_t rows = 1; rows <= std::min(useful, units); ++rows) {
    const int64_t columns = std::min(useful / rows, panels);
    const int64_t task_rows = ceil_div(units, rows) * row_unit;
    const int64_t task_panels = ceil_div(panels, columns);
    const double cost = static_cast<double>(task_rows * task_panels) * kRowPanelCost +
                        static_cast<double>(task_rows) * kRowCost +
                        static_cast<double>(task_panels) * kPanelCost;
    if (rows > 1 && cost >= least) continue;
    least = cost;
    // Equal tasks then beat whole tiles: 1024 rows for 2 threads are 512 each, not 516.
    const int64_t even = round_up(ceil_div(m, rows), row_multiple);
    best = {rows, columns, even >= kManyTiles * row_unit ? even : task_rows};
    best.row_tasks = ceil_div(m, best.rows_per_task);
  }
  return best;
}

Blocks choose_blocks(const kernels::GemmKernels& gemm, const kernels::PackedWeight& weight, int64_t task_rows,
                     int64_t row_bytes, bool bytes) {
  Blocks b;
  // A task of few rows is one tile.
  b.tile_rows = task_rows <= std::max(2 * gemm.row_block, kFewRows) ? task_rows : gemm.row_block;
  // So is one panel, as high as its accumulators allow.
  if (gemm.finishes && weight.panels() == 1) {
    const int64_t most = gemm.tile_bytes / (kernels::kPanelColumns * 4) / gemm.row_block * gemm.row_block;
    b.tile_rows = std::max(b.tile_rows, std::min(task_rows, most));
  }

  // Nor do accumulators that become bytes wait in L1: more rows for each panel, which stay there.
  if (bytes) {
    const int64_t most = std::min(kByteTileRows, kByteTileInput / std::max<int64_t>(1, weight.k_pad()));
    b.tile_rows = std::max(b.tile_rows, std::min(task_rows, most / gemm.row_block * gemm.row_block));
  }

  // Panels: their accumulators fit the tile, their weights a quarter of L2.
  const int64_t panel_tile = round_up(b.tile_rows, gemm.row_multiple) * kernels::kPanelColumns * 4;
  const int64_t in_l2 = l2_bytes() / 4 / std::max<int64_t>(1, weight.panel_bytes());
  // Bytes of one k block leave none.
  const int64_t fit =
      bytes && weight.k_pad() <= gemm.k_block ? weight.panels() : gemm.tile_bytes / panel_tile;
  b.tile_panels = std::min({fit, in_l2, weight.panels()});
  b.tile_panels = std::max<int64_t>(1, b.tile_panels);

  // Rows: half of L2, shared out evenly, because each set of them reads all weights again.
  const int64_t most = std::max(b.tile_rows, l2_bytes() / 2 / row_bytes);
  const int64_t sets = ceil_div(task_rows, most);
  b.rows = std::min(task_rows, round_up(ceil_div(task_rows, sets), b.tile_rows));

  b.quads = round_up(ceil_div(weight.k(), 4), gemm.quad_multiple);
  const int64_t k_blocks = std::max<int64_t>(1, ceil_div(4 * b.quads, gemm.k_block));
  b.k_quads = round_up(ceil_div(b.quads, k_blocks), gemm.quad_multiple);
  return b;
}

}  // namespace tae::native
