// Recurrent layers on our own kernels.
//
// The input's side of all steps is one int8 GEMM (linear_dynamic) a chunk of time, in the
// column order of the recurrent weights: gates of 16 units side by side. A step is then
// one pass over W_hh whose accumulators, still in L1, become the next state. The steps of
// a chunk run in one parallel region: directions and rows are independent; where they are
// too few, the threads share the units (each slice of W_hh stays in its core's L2) and
// meet at a barrier after each pass over a matrix. Behind it each thread quantizes all of
// h for itself, which is cheaper than to share it out and meet once more.
//
// Second parts of weights are matrices of their own. Their products, as floats, stand before the
// pass over the first parts, whose gates add them.
#include "engines/rnn.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "engines/native/rnn_input.h"
#include "engines/native/rnn_matrix.h"
#include "kernels/choose_qparams.h"
#include "kernels/rows.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

using kernels::GateTile;
using kernels::GemmKernels;
using kernels::kPanelColumns;

// AMX computes 16 rows whatever the batch is; the vector kernel reads the same panels.
Isa gemm_level(Isa isa) { return isa == Isa::amx ? Isa::avx512_vnni : isa; }

// Rows of q(h) with a scale each.
struct QuantizedRows {
  void resize(const RnnMatrix& m, int64_t rows, int64_t row_multiple);
  // Rows from `row` for items [begin, end).
  RnnOperand operand(int64_t row, int64_t rows, int64_t begin, int64_t end) const {
    const int32_t* offset = column_offset.empty() ? nullptr : column_offset.data();
    return {q.data() + row * stride, stride, rows, begin, end, offset};
  }

  std::vector<uint8_t> q;  // [rows + padding][stride]
  int64_t stride = 0;
  std::vector<float> scale;            // [rows]
  std::vector<int32_t> column_offset;  // [columns], when rows have one zero point that is not 128
};

void QuantizedRows::resize(const RnnMatrix& m, int64_t rows, int64_t row_multiple) {
  stride = m.packed.k_pad() | kernels::kKMultiple;
  q.assign(((rows + row_multiple - 1) / row_multiple + 1) * row_multiple * stride, 128);
  scale.assign(rows, 1.f);
}

// What one direction keeps between steps.
struct Lane {
  RnnDirection d;
  // h as the next step reads it, and before a projection: one of each thread that shares the
  // units, or of each block of rows (threads do not write into each other's cache lines).
  std::vector<QuantizedRows> h, wide_h;
  std::vector<float> wide;  // [batch][hidden]
  RnnInputSide x;           // of the chunk
  // Second parts: of R, of the projection, and of a GRU's x where it is held. [batch][columns]
  std::vector<float> r_low, wide_low, x_low;
  std::vector<bool> broken;  // [batch], rows whose c0 has a NaN
};

// What one call of a phase works on.
struct Part {
  int64_t step = 0;
  int64_t first_row = 0;  // of the chunk's x
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t item_begin = 0;
  int64_t item_end = 0;
  int buffer = 0;  // of Lane::h
};

constexpr int64_t kChunkBytes = 2 << 20;  // of the input's side of a chunk
constexpr int64_t kChunkRows = 96;        // fewer make a slow GEMM
// Multiply-adds of a step below which a second thread costs more than it brings.
constexpr int64_t kParallelMacs = 128 << 10;
// The same of a whole call, which wakes the threads for its input and for its steps: a cell of 256
// units takes 10 us alone and 16 us with a second thread.
constexpr int64_t kParallelCallMacs = 1 << 20;

using Accumulators = std::vector<int32_t>;

class NativeRnn final : public RnnImpl {
 public:
  NativeRnn(const RnnProblem& p, Isa isa);
  [[gnu::noinline]] bool init_input(const RnnProblem& p, std::string* reason) {
    return input_.init(p, hh_, reason);
  }

  void run(const RnnArgs& args, const RnnDirection* directions, int count) const override;
  const char* engine() const override { return "native"; }
  std::string description() const override {
    return std::string("native ") + name_of(isa_) + " fused steps" + parts_text() + "; input " +
           input_.description();
  }
  size_t packed_bytes() const override {
    return input_.packed_bytes() + hh_.bytes() + hh_low_.bytes() + hr_.bytes() + hr_low_.bytes() +
           4 * bias_n_.size();
  }

 private:
  [[gnu::noinline]] void run_all(const RnnArgs& args, const RnnDirection* directions, int count) const;
  void start(const RnnArgs& args, const RnnDirection& d, Lane* lane) const;
  void renew(const RnnArgs& args, Lane* lane, const Part& part, Accumulators* acc) const;
  void gates(const RnnArgs& args, Lane* lane, const Part& part, Accumulators* acc) const;
  void project(const RnnArgs& args, Lane* lane, const Part& part, Accumulators* acc) const;
  void quantize_row(const float* h, int64_t count, QuantizedRows* rows, int64_t row) const;
  template <typename Row>
  void quantize_together(const RnnMatrix& m, int64_t count, int64_t rows, Row row, QuantizedRows* out) const;
  void quantize_active(const RnnArgs& args, Lane* lane, int64_t step, int buffer) const;
  void quantize_wide(const RnnArgs& args, Lane* lane, const Part& part) const;
  void quantize_h(const RnnArgs& args, Lane* lane, const Part& part) const;
  void run_rows(const RnnArgs& args, Lane* lane, Part part, int64_t end, Accumulators* acc) const;
  void run_units(const RnnArgs& args, std::vector<Lane>* lanes, const RnnChunk& chunk, int member,
                 int members, Accumulators* acc) const;
  // Returns how many threads have a current h.
  int run_chunk(const RnnArgs& args, std::vector<Lane>* lanes, const RnnChunk& chunk, int current,
                std::vector<Accumulators>* acc) const;
  const char* parts_text() const {
    if (!two_parts()) return "";
    return input_.has_low() ? ", weights in two parts" : ", W_hh in two parts";
  }
  bool two_parts() const { return hh_low_.items() > 0; }
  bool held_apart() const { return input_.held() && kind_ == RnnKind::gru; }
  int64_t macs_of_row() const {
    return (hh_.columns() + hh_low_.columns() / low_period_) * output_ +
           (hr_.columns() + hr_low_.columns()) * hidden_;
  }

  Isa isa_;
  RnnKind kind_;
  bool projected_;
  int64_t hidden_, output_, low_period_;
  bool per_row_, reduce_range_;
  RnnInput input_;
  RnnMatrix hh_, hh_low_, hr_, hr_low_;
  std::vector<float> bias_n_;  // GRU: [columns], b_hn in the columns of n
  const GemmKernels& gemm_;
  const kernels::RowKernels& rows_;
  const kernels::RnnKernels& cells_;
};

NativeRnn::NativeRnn(const RnnProblem& p, Isa isa)
    : isa_(isa),
      kind_(p.kind),
      projected_(p.projected()),
      hidden_(p.hidden),
      output_(p.output),
      low_period_(p.low_period),
      per_row_(p.per_row),
      reduce_range_(p.reduce_range),
      hh_(p.hh.high, p.hh.scale, p.hidden, gates_of(p.kind), p.output),
      gemm_(kernels::gemm_kernels(gemm_level(isa))),
      rows_(kernels::row_kernels(isa)),
      cells_(kernels::rnn_kernels(isa)) {
  if (projected_) hr_ = RnnMatrix(p.hr.high, p.hr.scale, p.output, 1, p.hidden);
  if (p.hh.parts() == 2) hh_low_ = hh_.rows_in_order(p.hh.low, p.hh.low_scale);
  if (p.hr.parts() == 2) hr_low_ = hr_.rows_in_order(p.hr.low, p.hr.low_scale);
  if (kind_ == RnnKind::gru) {
    bias_n_.assign(hh_.columns(), 0.f);
    for (int64_t u = 0; u < hidden_ && p.bias_hh != nullptr; ++u)
      bias_n_[kernels::gate_column(u, 2, 3)] = p.bias_hh[2 * hidden_ + u];
  }
}

// Copies the initial states and quantizes all rows of h0, those too that become active later.
void NativeRnn::start(const RnnArgs& args, const RnnDirection& d, Lane* lane) const {
  const int64_t batch = args.batch;
  lane->d = d;
  input_.start(args, d.reverse, &lane->x);
  if (two_parts()) {
    lane->r_low.resize(batch * hh_.columns());
    if (held_apart()) lane->x_low.resize(batch * hh_.columns());
  }
  if (hr_low_.items() > 0) lane->wide_low.resize(batch * hr_.columns());
  lane->h.resize(1);
  lane->h[0].resize(hh_, batch, gemm_.row_multiple);
  if (projected_) {
    lane->wide.resize(batch * hidden_);
    lane->wide_h.resize(1);
    lane->wide_h[0].resize(hr_, batch, gemm_.row_multiple);
  }
  std::fill_n(d.h, batch * output_, 0.f);
  if (d.h0 != nullptr) std::copy_n(d.h0, batch * output_, d.h);
  if (kind_ == RnnKind::lstm) {
    std::fill_n(d.c, batch * hidden_, 0.f);
    if (d.c0 != nullptr) std::copy_n(d.c0, batch * hidden_, d.c);
  }
  lane->broken.assign(batch, false);
  for (int64_t n = 0; n < batch; ++n) {
    if (d.h0 != nullptr && per_row_) quantize_row(d.h + n * output_, output_, &lane->h[0], n);
    bool broken = false;
    for (int64_t u = 0; u < hidden_ && d.c0 != nullptr && kind_ == RnnKind::lstm; ++u)
      broken = broken || std::isnan(d.c[n * hidden_ + u]);
    if (broken) lane->h[0].scale[n] = std::numeric_limits<float>::quiet_NaN();
    lane->broken[n] = broken;
  }
  if (!per_row_) quantize_active(args, lane, 0, 0);
}

int64_t time_of(const RnnArgs& args, const Lane& lane, int64_t step) {
  return rnn_time(args, lane.d.reverse, step);
}

// Rows of the part that its step has.
int64_t active_end(const RnnArgs& args, const Lane& lane, const Part& part) {
  return std::min(part.row_end, args.rows_of(time_of(args, lane, part.step)));
}

// The products with second parts of the rows that are due, for the part's units.
void NativeRnn::renew(const RnnArgs& args, Lane* lane, const Part& part, Accumulators* acc) const {
  const int64_t end = active_end(args, *lane, part), columns = hh_.columns();
  const int64_t begin_column = part.item_begin * hh_.item_columns();
  const int64_t end_column = part.item_end * hh_.item_columns();
  const QuantizedRows& h = lane->h[part.buffer];
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

void NativeRnn::gates(const RnnArgs& args, Lane* lane, const Part& part, Accumulators* acc) const {
  const int64_t r = part.row_begin;
  const int64_t rows = active_end(args, *lane, part) - r;
  if (rows <= 0) return;
  const int64_t x_row = args.first_row(time_of(args, *lane, part.step)) + r;
  const QuantizedRows& h = lane->h[part.buffer];
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

void NativeRnn::project(const RnnArgs& args, Lane* lane, const Part& part, Accumulators* acc) const {
  const int64_t r = part.row_begin;
  const int64_t rows = active_end(args, *lane, part) - r;
  if (rows <= 0) return;
  const QuantizedRows& wide = lane->wide_h[part.buffer];
  GateTile tile;
  tile.row_scale = wide.scale.data() + r;
  tile.h = lane->d.h + r * output_;
  tile.state_stride = output_;
  tile.y = lane->d.y + (args.first_row(time_of(args, *lane, part.step)) + r) * args.y_stride;
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

// A NaN or infinity gives a NaN scale and leaves the integers as they are.
void NativeRnn::quantize_row(const float* h, int64_t count, QuantizedRows* rows, int64_t row) const {
  float low, high;
  rows_.min_max_f32(h, count, &low, &high);
  float scale = low;
  if (!std::isnan(low)) {
    const float m = -low > high ? -low : high;
    scale = m / 127.f;
    if (scale < std::numeric_limits<float>::min()) scale = m == 0.f ? 1.f : std::numeric_limits<float>::min();
    rows_.quantize_full_f32(h, count, 1.f / scale, 128, rows->q.data() + row * rows->stride, rows->stride);
  }
  rows->scale[row] = scale;
}

// All rows with one scale and zero point; row(r) is null for zeros.
template <typename Row>
void NativeRnn::quantize_together(const RnnMatrix& m, int64_t count, int64_t rows, Row row,
                                  QuantizedRows* out) const {
  float low = 0.f, high = 0.f;
  for (int64_t r = 0; r < rows; ++r) {
    float a = 0.f, b = 0.f;
    if (const float* values = row(r); values != nullptr) rows_.min_max_f32(values, count, &a, &b);
    // A NaN range stays NaN: no comparison with it is true.
    low = low <= a ? low : a;
    high = high >= b ? high : b;
    if (std::isnan(low)) break;
  }
  const kernels::QParams q = kernels::tensor_qparams(low, high, /*symmetric=*/false, reduce_range_);
  std::fill_n(out->scale.begin(), rows, q.scale);
  if (std::isnan(q.scale)) return;
  const kernels::QRange range = kernels::dynamic_range(/*symmetric=*/false, reduce_range_);
  for (int64_t r = 0; r < rows; ++r) {
    uint8_t* to = out->q.data() + r * out->stride;
    if (const float* values = row(r); values != nullptr) {
      rows_.quantize_f32(values, count, 1.f / q.scale, q.zero_point, range.lo, range.hi, to, out->stride);
    } else {
      std::fill_n(to, count, static_cast<uint8_t>(q.zero_point));
    }
  }
  out->column_offset.resize(m.columns());
  m.fill_column_offset(q.zero_point, out->column_offset.data());
}

// h for the rows of `step`, without per_row: those that the step before had from the output, as no
// thread writes there again, the others from h0.
void NativeRnn::quantize_active(const RnnArgs& args, Lane* lane, int64_t step, int buffer) const {
  const int64_t rows = args.rows_of(time_of(args, *lane, step));
  const int64_t before = step == 0 ? 0 : std::min(rows, args.rows_of(time_of(args, *lane, step - 1)));
  const float* y =
      step == 0 ? nullptr : lane->d.y + args.first_row(time_of(args, *lane, step - 1)) * args.y_stride;
  const float* h0 = lane->d.h0;
  QuantizedRows* h = &lane->h[buffer];
  quantize_together(
      hh_, output_, rows,
      [&](int64_t r) {
        return r < before ? y + r * args.y_stride : h0 == nullptr ? nullptr : h0 + r * output_;
      },
      h);
  for (int64_t r = before; r < rows; ++r)
    if (lane->broken[r]) h->scale[r] = std::numeric_limits<float>::quiet_NaN();
}

void NativeRnn::quantize_wide(const RnnArgs& args, Lane* lane, const Part& part) const {
  if (!per_row_) {
    const float* wide = lane->wide.data();
    quantize_together(
        hr_, hidden_, active_end(args, *lane, part), [&](int64_t r) { return wide + r * hidden_; },
        &lane->wide_h[part.buffer]);
    return;
  }
  for (int64_t r = part.row_begin; r < active_end(args, *lane, part); ++r)
    quantize_row(lane->wide.data() + r * hidden_, hidden_, &lane->wide_h[part.buffer], r);
}

// For the next step, from the output: no thread writes there again.
void NativeRnn::quantize_h(const RnnArgs& args, Lane* lane, const Part& part) const {
  if (part.step + 1 == args.steps) return;
  if (!per_row_) return quantize_active(args, lane, part.step + 1, part.buffer);
  const float* y = lane->d.y + args.first_row(time_of(args, *lane, part.step)) * args.y_stride;
  for (int64_t r = part.row_begin; r < active_end(args, *lane, part); ++r)
    quantize_row(y + r * args.y_stride, output_, &lane->h[part.buffer], r);
}

int64_t share(int64_t count, int64_t i, int64_t of) { return count * i / of; }

// Rows of one direction through steps [part.step, end), by one thread.
void NativeRnn::run_rows(const RnnArgs& args, Lane* lane, Part part, int64_t end, Accumulators* acc) const {
  for (; part.step < end; ++part.step) {
    part.item_end = hh_.items();
    gates(args, lane, part, acc);
    if (projected_) {
      quantize_wide(args, lane, part);
      part.item_end = hr_.items();
      project(args, lane, part, acc);
    }
    quantize_h(args, lane, part);
  }
}

// A share of the units of all directions, which lie in one line, through the chunk.
void NativeRnn::run_units(const RnnArgs& args, std::vector<Lane>* lanes, const RnnChunk& chunk, int member,
                          int members, Accumulators* acc) const {
  const int64_t count = static_cast<int64_t>(lanes->size());
  const auto for_own = [&](int64_t items, int64_t step, const auto& body) {
    const int64_t from = share(count * items, member, members);
    const int64_t to = share(count * items, member + 1, members);
    for (int64_t i = 0; i < count; ++i) {
      Lane& lane = (*lanes)[i];
      const Part part{
          step,       rnn_chunk_row(args, lane.d.reverse, chunk), 0,
          args.batch, std::max(from, i * items) - i * items,      std::min(to, (i + 1) * items) - i * items,
          member};
      if (part.item_begin < part.item_end) body(*static_cast<const NativeRnn*>(lane.d.impl), &lane, part);
    }
  };
  for (int64_t step = chunk.begin; step < chunk.end; ++step) {
    for_own(hh_.items(), step,
            [&](const NativeRnn& impl, Lane* lane, const Part& part) { impl.gates(args, lane, part, acc); });
    team_barrier();
    if (projected_) {
      for_own(hr_.items(), step, [&](const NativeRnn& impl, Lane* lane, const Part& part) {
        impl.quantize_wide(args, lane, part);
        impl.project(args, lane, part, acc);
      });
      team_barrier();
    }
    for (Lane& lane : *lanes) {
      const Part all{.step = step, .row_end = args.batch, .buffer = member};
      static_cast<const NativeRnn*>(lane.d.impl)->quantize_h(args, &lane, all);
    }
  }
}

int NativeRnn::run_chunk(const RnnArgs& args, std::vector<Lane>* lanes, const RnnChunk& chunk, int current,
                         std::vector<Accumulators>* acc) const {
  const int threads = static_cast<int>(acc->size());
  const int64_t count = static_cast<int64_t>(lanes->size());
  // Row blocks of a direction that run alone: few enough that W_hh is read once a core
  // from its own L2, or the direction whole.
  int64_t blocks = 1;
  if (per_row_ && count < threads &&
      hh_.packed.bytes() + hh_low_.packed.bytes() <= static_cast<size_t>(l2_bytes()) / 4 * 3)
    blocks = std::min<int64_t>((threads + count - 1) / count, args.batch / 2);
  const int64_t of = std::max<int64_t>(blocks, 1);
  const int64_t tasks = count * of;
  const bool alone = threads == 1 || tasks >= threads;
  for (Lane& lane : *lanes) {
    lane.h.resize(alone ? of : threads, lane.h[0]);
    if (projected_) lane.wide_h.resize(alone ? of : threads, lane.wide_h[0]);
  }
  int team = 1;
  const auto work = [&](int member, int members) __attribute__((noinline)) {
    Accumulators* own = &(*acc)[member];
    if (alone) {
      for (int64_t task = member; task < tasks; task += members) {
        Lane& lane = (*lanes)[task % count];
        const int64_t block = task / count;
        const Part part{.step = chunk.begin,
                        .first_row = rnn_chunk_row(args, lane.d.reverse, chunk),
                        .row_begin = share(args.batch, block, of),
                        .row_end = share(args.batch, block + 1, of),
                        .buffer = static_cast<int>(block)};
        static_cast<const NativeRnn*>(lane.d.impl)->run_rows(args, &lane, part, chunk.end, own);
      }
      return;
    }
    if (member == 0) team = members;
    // More threads than in the chunk before. The first one writes its h behind a barrier.
    for (Lane& lane : *lanes)
      if (member >= current) lane.h[member] = lane.h[0];
    run_units(args, lanes, chunk, member, members, own);
  };
  run_team(threads, [&work](int member, int members) {
    const kernels::DefaultFloatEnv env;
    work(member, members);
  });
  return team;
}

void NativeRnn::run(const RnnArgs& args, const RnnDirection* directions, int count) const {
  const kernels::DefaultFloatEnv env;  // for the scales of the first states
  run_all(args, directions, count);
}

void NativeRnn::run_all(const RnnArgs& args, const RnnDirection* directions, int count) const {
  const int64_t rows = args.first_row(args.steps - 1) + args.rows_of(args.steps - 1);
  const SerialRegion serial(count * rows * (macs_of_row() + input_.macs_of_row()) < kParallelCallMacs);
  std::vector<Lane> lanes(count);
  for (int i = 0; i < count; ++i)
    static_cast<const NativeRnn*>(directions[i].impl)->start(args, directions[i], &lanes[i]);
  const bool large = count * args.batch * macs_of_row() >= kParallelMacs;
  std::vector<Accumulators> acc(large ? num_threads() : 1);
  for (Accumulators& a : acc) a.resize(rnn_acc_size(args.batch, gemm_.row_multiple));
  const int64_t step_bytes = 4 * args.batch * hh_.columns();
  int64_t steps =
      std::max<int64_t>({1, kChunkBytes / step_bytes, (kChunkRows + args.batch - 1) / args.batch});
  if (!per_row_) steps = std::max<int64_t>(args.steps, 1);  // x has one scale
  int current = static_cast<int>(acc.size());
  for (int64_t begin = 0; begin < args.steps; begin += steps) {
    const RnnChunk chunk{begin, std::min(args.steps, begin + steps)};
    for (Lane& lane : lanes)
      static_cast<const NativeRnn*>(lane.d.impl)->input_.run(args, lane.d.reverse, chunk, &lane.x);
    current = run_chunk(args, &lanes, chunk, current, &acc);
  }
}

}  // namespace

Result<RnnImplPtr> make_rnn_native(const RnnProblem& p) {
  const kernels::DefaultFloatEnv env;  // for the sums of the biases
  auto impl = std::make_shared<NativeRnn>(p, best_isa());
  std::string reason;
  if (!impl->init_input(p, &reason)) return Refusal{reason};
  return RnnImplPtr(std::move(impl));
}

}  // namespace tae
