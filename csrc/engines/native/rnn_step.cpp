// The passes of a step: over W_hh, whose accumulators become the next state, and over the projection.
#include "engines/native/rnn_step.h"

#include <algorithm>

namespace tae {

using kernels::GateTile;

// The products with second parts of the rows that are due, for the part's units.
void NativeRnn::renew(const RnnArgs& args, RnnLane* lane, const RnnPart& part, RnnAccumulators* acc) const {
  const int64_t end = rnn_active_end(args, *lane, part), columns = hh_.columns();
  const int64_t begin_column = part.item_begin * hh_.item_columns();
  const int64_t end_column = part.item_end * hh_.item_columns();
  const RnnRows& h = lane->h[part.buffer];
  for (int64_t r = part.row_begin; r < end;) {
    if (!lane->x.due(part.step, r)) {
      ++r;
      continue;
    }
    int64_t last = r;
    while (last < end && lane->x.due(part.step, last)) ++last;
    for (int64_t n = r; n < last && held_apart(); ++n) {
      const float* low = lane->x.low_row(part.step, n, columns);
      std::copy(low + begin_column, low + end_column, lane->x_low.data() + n * columns + begin_column);
    }
    const bool with_x = input_.held() && !held_apart();
    GateTile tile;
    if (with_x) tile.r_low = lane->x.low_row(part.step, r, columns);
    tile.r_low_stride = columns;
    tile.row_scale = h.scale.data() + r;
    tile.h = lane->r_low.data() + r * columns;
    tile.state_stride = columns;
    const RnnOperand operand =
        h.operand(r, last - r, part.item_begin * hh_.panels, part.item_end * hh_.panels);
    multiply_rnn(gemm_, hh_low_, operand, tile, cells_.project[with_x], acc->data());
    r = last;
  }
}

void NativeRnn::gates(const RnnArgs& args, RnnLane* lane, const RnnPart& part, RnnAccumulators* acc) const {
  const int64_t r = part.row_begin;
  const int64_t rows = rnn_active_end(args, *lane, part) - r;
  if (rows <= 0) return;
  const int64_t x_row = args.first_row(rnn_step_time(args, *lane, part.step)) + r;
  const RnnRows& h = lane->h[part.buffer];
  GateTile tile;
  tile.row_scale = h.scale.data() + r;
  const int64_t columns = hh_.columns();
  tile.x = lane->x.x.data() + (x_row - part.first_row) * columns;
  tile.x_stride = columns;
  if (two_parts()) {
    renew(args, lane, part, acc);
    if (held_apart()) tile.x_low = lane->x_low.data() + r * columns;
    tile.r_low = lane->r_low.data() + r * columns;
    tile.x_low_stride = tile.r_low_stride = columns;
  }
  if (kind_ == RnnKind::gru) tile.bias = bias_n_.data();
  if (kind_ == RnnKind::lstm) tile.c = lane->d.c + r * hidden_;
  tile.state_stride = hidden_;
  if (projected_) {
    tile.h = lane->wide.data() + r * hidden_;
  } else {
    tile.h = lane->d.h + r * hidden_;
    tile.y = lane->d.y + x_row * args.y_stride;
    tile.y_stride = args.y_stride;
  }
  const auto& fns = kind_ == RnnKind::lstm       ? cells_.lstm
                    : kind_ == RnnKind::gru      ? cells_.gru
                    : kind_ == RnnKind::rnn_tanh ? cells_.rnn_tanh
                                                 : cells_.rnn_relu;
  multiply_rnn(gemm_, hh_, h.operand(r, rows, part.item_begin, part.item_end), tile, fns[two_parts()],
               acc->data());
}

void NativeRnn::project(const RnnArgs& args, RnnLane* lane, const RnnPart& part, RnnAccumulators* acc) const {
  const int64_t r = part.row_begin;
  const int64_t rows = rnn_active_end(args, *lane, part) - r;
  if (rows <= 0) return;
  const RnnRows& wide = lane->wide_h[part.buffer];
  GateTile tile;
  tile.row_scale = wide.scale.data() + r;
  tile.h = lane->d.h + r * output_;
  tile.state_stride = output_;
  tile.y = lane->d.y + (args.first_row(rnn_step_time(args, *lane, part.step)) + r) * args.y_stride;
  tile.y_stride = args.y_stride;
  const RnnOperand operand = wide.operand(r, rows, part.item_begin, part.item_end);
  const bool two_parts = hr_low_.items() > 0;
  if (two_parts) {
    GateTile low;
    low.row_scale = tile.row_scale;
    low.h = lane->wide_low.data() + r * hr_.columns();
    low.state_stride = hr_.columns();
    tile.r_low = low.h;
    tile.r_low_stride = low.state_stride;
    multiply_rnn(gemm_, hr_low_, operand, low, cells_.project[0], acc->data());
  }
  multiply_rnn(gemm_, hr_, operand, tile, cells_.project[two_parts], acc->data());
}

}  // namespace tae
