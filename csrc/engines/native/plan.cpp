#include "engines/native/plan.h"

namespace tae::native {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Multiply-adds below which a second thread costs more than it gives: opening a
// parallel region takes about 3 us.
constexpr int64_t kTaskMacs = 100'000;

}  // namespace

Plan make_plan(int64_t m, int64_t panels, int64_t k_pad, int64_t row_unit, int threads) {
  const int64_t macs = m * panels * kernels::kPanelColumns * k_pad;
  int64_t useful = macs / kTaskMacs;
  if (useful > threads) useful = threads;

  Plan best{1, 1, m};
  if (useful <= 1) return best;
  const int64_t units = ceil_div(m, row_unit);
  double least = 0;
  for (int64_t rows = 1; rows <= useful && rows <= units; ++rows) {
    int64_t columns = useful / rows;
    if (columns > panels) columns = panels;
    const int64_t task_rows = ceil_div(units, rows) * row_unit;
    const int64_t task_panels = ceil_div(panels, columns);
    const double cost = static_cast<double>(task_rows * task_panels) * 0.5 +
                        static_cast<double>(task_rows) * 0.4 +
                        static_cast<double>(task_panels) * 4;
    if (rows > 1 && cost >= least) continue;
    least = cost;
    best = {ceil_div(m, task_rows), columns, task_rows};
  }
  return best;
}

}  // namespace tae::native
