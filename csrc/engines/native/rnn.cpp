// Recurrent layers on our own kernels.
//
// The input's side of all steps is one int8 GEMM (linear_dynamic) a chunk of time, in the
// column order of the recurrent weights: gates of 16 units side by side. A step is then
// one pass over W_hh whose accumulators, still in L1, become the next state. The steps of
// a chunk run in one parallel region: directions and rows are independent; where they are
// too few, the threads share the units (each slice of W_hh stays in its core's L2) and
// meet at a barrier after each phase of a step.
#include "engines/rnn.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "engines/linear.h"
#include "kernels/gemm.h"
#include "kernels/rnn.h"
#include "kernels/rows.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

using kernels::GateTile;
using kernels::GemmKernels;
using kernels::kPanelColumns;
using kernels::kUnits;
using kernels::PackedWeight;

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// AMX computes 16 rows whatever the batch is; the vector kernel reads the same panels.
Isa gemm_level(Isa isa) { return isa == Isa::amx ? Isa::avx512_vnni : isa; }

// A packed matrix whose columns are grouped for the gate kernels: `unit_block` units are
// `panels` whole panels.
struct Matrix {
  Matrix() = default;
  Matrix(const int8_t* weight, const float* weight_scale, int64_t units, int64_t gates, int64_t k);

  int64_t items() const { return unit_block == 0 ? 0 : (units + unit_block - 1) / unit_block; }
  int64_t item_columns() const { return panels * kPanelColumns; }
  int64_t columns() const { return items() * item_columns(); }
  size_t bytes() const { return packed.bytes() + 4 * scale.size(); }

  int64_t units = 0;
  int64_t unit_block = 0;
  int64_t panels = 0;
  PackedWeight packed;
  std::vector<float> scale;  // [columns], 1 in the padding
};

// Rows of `source` [gates * units][width] in column order, zeros (or `fill`) between.
template <typename T>
std::vector<T> in_column_order(const T* source, int64_t units, int64_t gates, int64_t columns, int64_t width,
                               T fill) {
  std::vector<T> result(columns * width, fill);
  for (int64_t g = 0; g < gates; ++g)
    for (int64_t u = 0; u < units; ++u)
      std::copy_n(source + (g * units + u) * width, width,
                  result.data() + kernels::gate_column(u, g, gates) * width);
  return result;
}

Matrix::Matrix(const int8_t* weight, const float* weight_scale, int64_t units_, int64_t gates, int64_t k)
    : units(units_), unit_block(gates == 4 ? 16 : 64), panels(gates == 3 ? 3 : 1) {
  packed = PackedWeight(in_column_order<int8_t>(weight, units, gates, columns(), k, 0).data(), columns(), k);
  scale = in_column_order(weight_scale, units, gates, columns(), 1, 1.f);
}

// What one direction keeps between steps.
struct Lane {
  RnnDirection d;
  std::vector<uint8_t> q[2];  // [batch + padding][q_stride], read and written in turn
  int64_t q_stride = 0;
  std::vector<float> scale[2];  // [batch]
  std::vector<float> inverse;   // [batch], of the scale that a step writes; empty: 127
  bool wide_start = false;      // some row begins above 1, or with NaN
  std::vector<float> wide;      // before a projection: [batch][hidden]
  std::vector<uint8_t> wide_q;
  std::vector<float> wide_scale;  // [batch]
  int64_t wide_stride = 0;
  std::vector<float> x;  // input's side of the chunk: [rows][columns]
};

// One thread's working memory.
struct Scratch {
  std::vector<int32_t> acc;
};

// Steps [begin, end), counted from the direction's own start.
struct Chunk {
  int64_t begin = 0;
  int64_t end = 0;
};

// What one call of a phase works on.
struct Part {
  int64_t step = 0;
  int64_t first_row = 0;  // of the chunk's x
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t item_begin = 0;
  int64_t item_end = 0;
};

constexpr int64_t kRowsAtOnce = 48;       // rows of accumulators in L1
constexpr int64_t kAccBytes = 16 << 10;   // of one tile
constexpr int64_t kChunkBytes = 2 << 20;  // of the input's side of a chunk
constexpr int64_t kChunkRows = 96;        // fewer make a slow GEMM
// Multiply-adds of a step below which a second thread costs more than it brings.
constexpr int64_t kParallelMacs = 128 << 10;

class NativeRnn final : public RnnImpl {
 public:
  NativeRnn(const RnnProblem& p, Isa isa);
  [[gnu::noinline]] bool init_input(const RnnProblem& p, std::string* reason);

  void run(const RnnArgs& args, const RnnDirection* directions, int count) const override;
  const char* engine() const override { return "native"; }
  std::string description() const override {
    return std::string("native ") + name_of(isa_) + " fused steps; input " + input_->description();
  }
  size_t packed_bytes() const override {
    return input_->packed_bytes() + hh_.bytes() + hr_.bytes() + 4 * bias_n_.size();
  }

 private:
  using GateFn = void (*)(const GateTile&);
  [[gnu::noinline]] void run_all(const RnnArgs& args, const RnnDirection* directions, int count) const;
  void start(const RnnArgs& args, const RnnDirection& d, Lane* lane) const;
  void project_input(const RnnArgs& args, const Chunk& chunk, Lane* lane) const;
  void gates(const RnnArgs& args, Lane* lane, Part part, Scratch* scratch) const;
  void project(const RnnArgs& args, Lane* lane, const Part& part, Scratch* scratch) const;
  float quantize_row(const float* h, int64_t count, uint8_t* q, int64_t stride) const;
  void search_wide(Lane* lane, int64_t row) const;
  void search(Lane* lane, int64_t step, int64_t row) const;
  void multiply(const Matrix& m, const uint8_t* a, int64_t a_stride, GateTile tile, GateFn fn, int64_t rows,
                int64_t item_begin, int64_t item_end, int64_t gate_count, Scratch* scratch) const;
  void run_chunk(const RnnArgs& args, std::vector<Lane>* lanes, const Chunk& chunk, int threads,
                 std::vector<Scratch>* scratch) const;
  int64_t macs_of_row() const { return hh_.columns() * output_ + hr_.columns() * hidden_; }
  bool searches() const { return searches_scale(kind_, projected_); }

  Isa isa_;
  RnnKind kind_;
  bool projected_;
  int64_t input_size_, hidden_, output_;
  DType input_dtype_;
  LinearImplPtr input_;
  Matrix hh_, hr_;
  std::vector<float> bias_n_;  // GRU: [columns], b_hn in the columns of n
  const GemmKernels& gemm_;
  const kernels::RowKernels& rows_;
  const kernels::RnnKernels& cells_;
};

NativeRnn::NativeRnn(const RnnProblem& p, Isa isa)
    : isa_(isa),
      kind_(p.kind),
      projected_(p.projected()),
      input_size_(p.input),
      hidden_(p.hidden),
      output_(p.output),
      input_dtype_(p.input_dtype),
      hh_(p.weight_hh, p.scale_hh, p.hidden, gates_of(p.kind), p.output),
      gemm_(kernels::gemm_kernels(gemm_level(isa))),
      rows_(kernels::row_kernels(isa)),
      cells_(kernels::rnn_kernels(isa)) {
  if (projected_) hr_ = Matrix(p.weight_hr, p.scale_hr, p.output, 1, p.hidden);
  if (kind_ == RnnKind::gru) {
    bias_n_.assign(hh_.columns(), 0.f);
    for (int64_t u = 0; u < hidden_ && p.bias_hh != nullptr; ++u)
      bias_n_[kernels::gate_column(u, 2, 3)] = p.bias_hh[2 * hidden_ + u];
  }
}

bool NativeRnn::init_input(const RnnProblem& p, std::string* reason) {
  const int64_t gates = gates_of(p.kind);
  const int64_t columns = hh_.columns();
  std::vector<float> bias(gates * p.hidden);
  for (int64_t i = 0; i < gates * p.hidden; ++i) {
    const bool apart = p.kind == RnnKind::gru && i >= 2 * p.hidden;
    bias[i] =
        (p.bias_ih == nullptr ? 0.f : p.bias_ih[i]) + (p.bias_hh == nullptr || apart ? 0.f : p.bias_hh[i]);
  }
  const auto weight = in_column_order<int8_t>(p.weight_ih, p.hidden, gates, columns, p.input, 0);
  const auto scale = in_column_order(p.scale_ih, p.hidden, gates, columns, 1, 1.f);
  const auto ordered = in_column_order(bias.data(), p.hidden, gates, columns, 1, 0.f);
  LinearProblem linear;
  linear.k = p.input;
  linear.n = columns;
  linear.weight = weight.data();
  linear.weight_scale = scale.data();
  linear.weight_scale_size = columns;
  linear.bias = ordered.data();
  linear.dynamic = true;
  linear.input_dtype = p.input_dtype;
  linear.output_dtype = DType::f32;
  Result<LinearImplPtr> made = make_linear_native(linear);
  if (made) input_ = std::move(made.value());
  if (!made) *reason = made.reason();
  return input_ != nullptr;
}

// Copies the initial states and quantizes h0 into both buffers: a row that becomes
// active later finds it in whichever is read then.
void NativeRnn::start(const RnnArgs& args, const RnnDirection& d, Lane* lane) const {
  const int64_t batch = args.batch;
  lane->d = d;
  lane->q_stride = hh_.packed.k_pad() | kernels::kKMultiple;
  const int64_t padded = round_up(batch, gemm_.row_multiple) + gemm_.row_multiple;
  for (int i = 0; i < 2; ++i) {
    lane->q[i].assign(padded * lane->q_stride, 128);
    lane->scale[i].assign(batch, kernels::kUnitScale);
  }
  if (projected_) {
    lane->wide.resize(batch * hidden_);
    lane->wide_scale.resize(batch);
    lane->wide_stride = hr_.packed.k_pad() | kernels::kKMultiple;
    lane->wide_q.assign(padded * lane->wide_stride, 128);
  }
  std::fill_n(d.h, batch * output_, 0.f);
  if (d.h0 != nullptr) std::copy_n(d.h0, batch * output_, d.h);
  if (kind_ == RnnKind::lstm) {
    std::fill_n(d.c, batch * hidden_, 0.f);
    if (d.c0 != nullptr) std::copy_n(d.c0, batch * hidden_, d.c);
  }
  if (d.h0 == nullptr && d.c0 == nullptr) {
    // A search would give scale 1 for a row of zeros: it multiplies zeros either way.
    return;
  }
  std::vector<float> inverse(batch, kernels::kUnitInverse);
  for (int64_t n = 0; n < batch; ++n) {
    float* h = d.h + n * output_;
    float low, high;
    rows_.min_max_f32(h, output_, &low, &high);
    float m = -low > high ? -low : high;
    if (std::isnan(low)) m = low;
    bool broken = std::isnan(m);
    for (int64_t u = 0; u < hidden_ && kind_ == RnnKind::lstm; ++u)
      broken = broken || std::isnan(d.c[n * hidden_ + u]);
    float scale = kernels::kUnitScale;
    if (broken) {
      scale = inverse[n] = std::numeric_limits<float>::quiet_NaN();
    } else if (searches()) {
      scale = m / 127.f;
      if (scale < std::numeric_limits<float>::min())
        scale = m == 0.f ? 1.f : std::numeric_limits<float>::min();
      inverse[n] = 1.f / scale;
    } else if (m > 1.f) {
      scale = m / 127.f;
      inverse[n] = 127.f / m;
    }
    lane->wide_start = lane->wide_start || scale != kernels::kUnitScale;
    uint8_t* q = lane->q[0].data() + n * lane->q_stride;
    if (!broken) rows_.quantize_f32(h, output_, inverse[n], 128, 1, 255, q, lane->q_stride);
    std::copy_n(q, lane->q_stride, lane->q[1].data() + n * lane->q_stride);
    lane->scale[0][n] = lane->scale[1][n] = scale;
  }
  if (kind_ == RnnKind::gru && lane->wide_start) lane->inverse = std::move(inverse);
}

int64_t time_of(const RnnArgs& args, const Lane& lane, int64_t step) {
  return lane.d.reverse ? args.steps - 1 - step : step;
}

// First row in x of the chunk's earliest time.
int64_t chunk_row(const RnnArgs& args, const Lane& lane, const Chunk& chunk) {
  return args.first_row(lane.d.reverse ? args.steps - chunk.end : chunk.begin);
}

void NativeRnn::project_input(const RnnArgs& args, const Chunk& chunk, Lane* lane) const {
  const int64_t last = lane->d.reverse ? args.steps - 1 - chunk.begin : chunk.end - 1;
  const int64_t first = chunk_row(args, *lane, chunk);
  LinearArgs linear;
  linear.m = args.first_row(last) + args.rows_of(last) - first;
  linear.input =
      static_cast<const uint8_t*>(args.x) + first * input_size_ * static_cast<int64_t>(size_of(input_dtype_));
  linear.input_stride = input_size_;
  lane->x.resize(linear.m * hh_.columns());
  linear.output = lane->x.data();
  input_->run(linear);
}

// Accumulators of items [item_begin, item_end) for `rows` rows of `a`, tile by tile, each
// handed to `fn`. `tile` is at row 0 and item 0.
void NativeRnn::multiply(const Matrix& m, const uint8_t* a, int64_t a_stride, GateTile tile, GateFn fn,
                         int64_t rows, int64_t item_begin, int64_t item_end, int64_t gate_count,
                         Scratch* scratch) const {
  const int64_t quads = round_up((m.packed.k() + 3) / 4, gemm_.quad_multiple);
  const int64_t columns = m.item_columns();
  const int64_t together = std::min(rows, kRowsAtOnce);
  const int64_t group = std::max<int64_t>(1, kAccBytes / (4 * columns * std::max<int64_t>(together, 1)));
  for (int64_t item = item_begin; item < item_end; item += group) {
    const int64_t items = std::min(group, item_end - item);
    const int64_t unit = item * m.unit_block;
    const int64_t column = item * columns;
    for (int64_t r = 0; r < rows; r += together) {
      const int64_t count = std::min(together, rows - r);
      const int64_t stride = items * columns;
      int32_t* acc = scratch->acc.data();
      if (count == 1 && gemm_.gemv != nullptr) {
        gemm_.gemv({.a = a + r * a_stride,
                    .b = m.packed.panel(item * m.panels),
                    .panel_bytes = m.packed.panel_bytes(),
                    .quads = quads,
                    .panels = items * m.panels,
                    .c = acc});
      } else {
        for (int64_t p = 0; p < items * m.panels; ++p) {
          kernels::GemmBlock g;
          g.a = a + r * a_stride;
          g.a_stride = a_stride;
          g.b = m.packed.panel(item * m.panels + p);
          g.quads = quads;
          g.c = acc + p * kPanelColumns;
          g.c_stride = stride;
          g.rows = count;
          const int64_t next = item * m.panels + p + 1;
          if (next < item_end * m.panels && r + together >= rows) {
            g.next = m.packed.panel(next);
            g.next_bytes = m.packed.panel_bytes();
          }
          gemm_.block(g);
        }
      }
      GateTile t = tile;
      t.rows = count;
      t.units = std::min(items * m.unit_block, m.units - unit);
      t.acc = acc;
      t.acc_stride = stride;
      t.column_sum = m.packed.column_sum() + column;
      t.weight_scale = m.scale.data() + column;
      t.row_scale = tile.row_scale + r;
      if (gate_count == 3) t.bias = tile.bias + column;
      if (tile.x != nullptr) t.x = tile.x + r * tile.x_stride + column;
      if (tile.c != nullptr) t.c = tile.c + r * tile.state_stride + unit;
      t.h = tile.h + r * tile.state_stride + unit;
      if (tile.y != nullptr) t.y = tile.y + r * tile.y_stride + unit;
      if (tile.q != nullptr) t.q = tile.q + r * tile.q_stride + unit;
      if (tile.q_inverse != nullptr) t.q_inverse = tile.q_inverse + r;
      fn(t);
    }
  }
}

void NativeRnn::gates(const RnnArgs& args, Lane* lane, Part part, Scratch* scratch) const {
  const int64_t t = time_of(args, *lane, part.step);
  const int64_t r = part.row_begin;
  const int64_t rows = std::min(part.row_end, args.rows_of(t)) - r;
  if (rows <= 0) return;
  const int64_t x_row = args.first_row(t) + r;
  const int now = static_cast<int>(part.step & 1), next = 1 - now;
  GateTile tile;
  tile.row_scale = lane->scale[now].data() + r;
  tile.x = lane->x.data() + (x_row - part.first_row) * hh_.columns();
  tile.x_stride = hh_.columns();
  tile.bias = bias_n_.data();
  if (kind_ == RnnKind::lstm) tile.c = lane->d.c + r * hidden_;
  tile.state_stride = hidden_;
  if (projected_) {
    tile.h = lane->wide.data() + r * hidden_;
  } else {
    tile.h = lane->d.h + r * hidden_;
    tile.y = lane->d.y + x_row * args.y_stride;
    tile.y_stride = args.y_stride;
    if (!searches()) tile.q = lane->q[next].data() + r * lane->q_stride;
    tile.q_stride = lane->q_stride;
    if (!lane->inverse.empty()) tile.q_inverse = lane->inverse.data() + r;
  }
  const GateFn fn = kind_ == RnnKind::lstm       ? cells_.lstm
                    : kind_ == RnnKind::gru      ? cells_.gru
                    : kind_ == RnnKind::rnn_tanh ? cells_.rnn_tanh
                                                 : cells_.rnn_relu;
  multiply(hh_, lane->q[now].data() + r * lane->q_stride, lane->q_stride, tile, fn, rows, part.item_begin,
           part.item_end, gates_of(kind_), scratch);
  // From its second step on an LSTM's row is within 1. One thread owns the first item.
  if (lane->wide_start && kind_ == RnnKind::lstm && !searches() && part.item_begin == 0)
    std::fill_n(lane->scale[next].data() + r, rows, kernels::kUnitScale);
}

void NativeRnn::project(const RnnArgs& args, Lane* lane, const Part& part, Scratch* scratch) const {
  const int64_t t = time_of(args, *lane, part.step);
  const int64_t r = part.row_begin;
  const int64_t rows = std::min(part.row_end, args.rows_of(t)) - r;
  if (rows <= 0 || part.item_begin >= part.item_end) return;
  GateTile tile;
  tile.row_scale = lane->wide_scale.data() + r;
  tile.h = lane->d.h + r * output_;
  tile.state_stride = output_;
  tile.y = lane->d.y + (args.first_row(t) + r) * args.y_stride;
  tile.y_stride = args.y_stride;
  multiply(hr_, lane->wide_q.data() + r * lane->wide_stride, lane->wide_stride, tile, cells_.project, rows,
           part.item_begin, part.item_end, 1, scratch);
}

// Quantizes a row with the scale of its largest value, which it returns.
float NativeRnn::quantize_row(const float* h, int64_t count, uint8_t* q, int64_t stride) const {
  float low, high;
  rows_.min_max_f32(h, count, &low, &high);
  if (std::isnan(low)) return low;
  const float m = -low > high ? -low : high;
  float scale = m / 127.f;
  if (scale < std::numeric_limits<float>::min()) scale = m == 0.f ? 1.f : std::numeric_limits<float>::min();
  rows_.quantize_f32(h, count, 1.f / scale, 128, 1, 255, q, stride);
  return scale;
}

// The LSTM's value before its projection.
void NativeRnn::search_wide(Lane* lane, int64_t row) const {
  lane->wide_scale[row] = quantize_row(lane->wide.data() + row * hidden_, hidden_,
                                       lane->wide_q.data() + row * lane->wide_stride, lane->wide_stride);
}

// h for the next step.
void NativeRnn::search(Lane* lane, int64_t step, int64_t row) const {
  const int next = static_cast<int>(1 - (step & 1));
  lane->scale[next][row] = quantize_row(lane->d.h + row * output_, output_,
                                        lane->q[next].data() + row * lane->q_stride, lane->q_stride);
}

int64_t share(int64_t count, int64_t i, int64_t of) { return count * i / of; }

void NativeRnn::run_chunk(const RnnArgs& args, std::vector<Lane>* lanes, const Chunk& chunk, int threads,
                          std::vector<Scratch>* scratch) const {
  const int64_t count = static_cast<int64_t>(lanes->size());
  const auto impl_of = [](const Lane& lane) { return static_cast<const NativeRnn*>(lane.d.impl); };
  // Row blocks of a direction that run alone: few enough that W_hh is read once a core
  // from its own L2, or the direction whole.
  int64_t blocks = 1;
  if (count < threads && hh_.packed.bytes() <= static_cast<size_t>(l2_bytes()) / 4 * 3)
    blocks = std::min<int64_t>((threads + count - 1) / count, args.batch / 2);
  const int64_t tasks = count * std::max<int64_t>(blocks, 1);
  const bool alone = threads == 1 || tasks >= threads;
  const auto work = [&](int member, int members) __attribute__((noinline)) {
    Scratch* own = &(*scratch)[member];
    if (alone) {
      for (int64_t task = member; task < tasks; task += members) {
        Lane& lane = (*lanes)[task % count];
        const NativeRnn& impl = *impl_of(lane);
        const int64_t block = task / count, of = tasks / count;
        Part part{0,
                  chunk_row(args, lane, chunk),
                  share(args.batch, block, of),
                  share(args.batch, block + 1, of),
                  0,
                  hh_.items()};
        for (part.step = chunk.begin; part.step < chunk.end; ++part.step) {
          impl.gates(args, &lane, part, own);
          if (!searches()) continue;
          const int64_t end = std::min(part.row_end, args.rows_of(time_of(args, lane, part.step)));
          if (projected_) {
            Part projection = part;
            projection.item_end = hr_.items();
            for (int64_t row = part.row_begin; row < end; ++row) impl.search_wide(&lane, row);
            impl.project(args, &lane, projection, own);
          }
          for (int64_t row = part.row_begin; row < end; ++row) impl.search(&lane, part.step, row);
        }
      }
      return;
    }
    // Units of all directions in one line; a member owns a range of it.
    const auto for_own = [&](int64_t items, int64_t step, const auto& body) {
      const int64_t from = share(count * items, member, members);
      const int64_t to = share(count * items, member + 1, members);
      for (int64_t i = 0; i < count; ++i) {
        Lane& lane = (*lanes)[i];
        Part part{
            step,       chunk_row(args, lane, chunk),          0,
            args.batch, std::max(from, i * items) - i * items, std::min(to, (i + 1) * items) - i * items};
        if (part.item_begin < part.item_end) body(*impl_of(lane), &lane, part);
      }
    };
    for (int64_t step = chunk.begin; step < chunk.end; ++step) {
      for_own(hh_.items(), step, [&](const NativeRnn& impl, Lane* lane, const Part& part) {
        impl.gates(args, lane, part, own);
      });
      team_barrier();
      const auto for_rows = [&](const auto& body) {
        for (Lane& lane : *lanes)
          for (int64_t row = member; row < args.rows_of(time_of(args, lane, step)); row += members)
            body(*impl_of(lane), &lane, row);
        team_barrier();
      };
      if (projected_) {
        for_rows([](const NativeRnn& impl, Lane* lane, int64_t row) { impl.search_wide(lane, row); });
        for_own(hr_.items(), step, [&](const NativeRnn& impl, Lane* lane, const Part& part) {
          impl.project(args, lane, part, own);
        });
        team_barrier();
      }
      if (!searches()) continue;
      for_rows([step](const NativeRnn& impl, Lane* lane, int64_t row) { impl.search(lane, step, row); });
    }
  };
  run_team(threads, [&work](int member, int members) {
    const kernels::DefaultFloatEnv env;
    work(member, members);
  });
}

void NativeRnn::run(const RnnArgs& args, const RnnDirection* directions, int count) const {
  const kernels::DefaultFloatEnv env;  // for the scales of the first states
  run_all(args, directions, count);
}

void NativeRnn::run_all(const RnnArgs& args, const RnnDirection* directions, int count) const {
  std::vector<Lane> lanes(count);
  for (int i = 0; i < count; ++i)
    static_cast<const NativeRnn*>(directions[i].impl)->start(args, directions[i], &lanes[i]);
  const bool large = count * args.batch * macs_of_row() >= kParallelMacs;
  const int threads = large ? num_threads() : 1;
  std::vector<Scratch> scratch(threads);
  const int64_t acc_rows = round_up(std::min(args.batch, kRowsAtOnce), gemm_.row_multiple);
  for (Scratch& s : scratch)
    s.acc.resize(std::max<int64_t>(kAccBytes / 4, acc_rows * 3 * kPanelColumns) + 16 * kPanelColumns * 3);
  const int64_t step_bytes = 4 * args.batch * hh_.columns();
  const int64_t steps =
      std::max<int64_t>({1, kChunkBytes / step_bytes, (kChunkRows + args.batch - 1) / args.batch});
  for (int64_t begin = 0; begin < args.steps; begin += steps) {
    const Chunk chunk{begin, std::min(args.steps, begin + steps)};
    for (Lane& lane : lanes) static_cast<const NativeRnn*>(lane.d.impl)->project_input(args, chunk, &lane);
    run_chunk(args, &lanes, chunk, threads, &scratch);
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
