// Recurrent layers on our own kernels: what is packed, and the order in which threads do the work.
#include "engines/rnn.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel.h"
#include "engines/native/rnn_step.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

// AMX computes 16 rows whatever the batch is; the vector kernel reads the same panels.
Isa gemm_level(Isa isa) { return isa == Isa::amx ? Isa::avx512_vnni : isa; }

constexpr int64_t kChunkBytes = 2 << 20;  // of the input's side of a chunk
constexpr int64_t kChunkRows = 96;        // fewer make a slow GEMM
// Multiply-adds of a step below which a second thread costs more than it brings.
constexpr int64_t kParallelMacs = 128 << 10;
// The same of a whole call, which wakes the threads for its input and for its steps: a cell of 256
// units takes 10 us alone and 16 us with a second thread.
constexpr int64_t kParallelCallMacs = 1 << 20;

int64_t share(int64_t count, int64_t i, int64_t of) { return count * i / of; }

}  // namespace

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
void NativeRnn::start(const RnnArgs& args, const RnnDirection& d, RnnLane* lane) const {
  const int64_t batch = args.batch;
  lane->d = d;
  input_.start(args, d.reverse, &lane->x);
  if (two_parts()) {
    lane->r_low.resize(batch * hh_.columns());
    if (held_apart()) lane->x_low.resize(batch * hh_.columns());
  }
  if (hr_low_.items() > 0) lane->wide_low.resize(batch * hr_.columns());
  lane->h.resize(1);
  lane->h[0].resize(hh_, batch, gemm_.row_multiple, !per_row_);
  if (projected_) {
    lane->wide.resize(batch * hidden_);
    lane->wide_h.resize(1);
    lane->wide_h[0].resize(hr_, batch, gemm_.row_multiple, !per_row_);
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

// Rows of one direction through steps [part.step, end), by one thread.
void NativeRnn::run_rows(const RnnArgs& args, RnnLane* lane, RnnPart part, int64_t end,
                         RnnAccumulators* acc) const {
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
void NativeRnn::run_units(const RnnArgs& args, std::vector<RnnLane>* lanes, const RnnChunk& chunk, int member,
                          int members, RnnAccumulators* acc) const {
  const int64_t count = static_cast<int64_t>(lanes->size());
  const auto for_own = [&](int64_t items, int64_t step, const auto& body) {
    const int64_t from = share(count * items, member, members);
    const int64_t to = share(count * items, member + 1, members);
    for (int64_t i = 0; i < count; ++i) {
      RnnLane& lane = (*lanes)[i];
      const RnnPart part{
          step,       rnn_chunk_row(args, lane.d.reverse, chunk), 0,
          args.batch, std::max(from, i * items) - i * items,      std::min(to, (i + 1) * items) - i * items,
          member};
      if (part.item_begin < part.item_end) body(*static_cast<const NativeRnn*>(lane.d.impl), &lane, part);
    }
  };
  for (int64_t step = chunk.begin; step < chunk.end; ++step) {
    for_own(hh_.items(), step, [&](const NativeRnn& impl, RnnLane* lane, const RnnPart& part) {
      impl.gates(args, lane, part, acc);
    });
    team_barrier();
    if (projected_) {
      for_own(hr_.items(), step, [&](const NativeRnn& impl, RnnLane* lane, const RnnPart& part) {
        impl.quantize_wide(args, lane, part);
        impl.project(args, lane, part, acc);
      });
      team_barrier();
    }
    for (RnnLane& lane : *lanes) {
      const RnnPart all{.step = step, .row_end = args.batch, .buffer = member};
      static_cast<const NativeRnn*>(lane.d.impl)->quantize_h(args, &lane, all);
    }
  }
}

int NativeRnn::run_chunk(const RnnArgs& args, std::vector<RnnLane>* lanes, const RnnChunk& chunk, int current,
                         std::vector<RnnAccumulators>* acc) const {
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
  for (RnnLane& lane : *lanes) {
    lane.h.resize(alone ? of : threads, lane.h[0]);
    if (projected_) lane.wide_h.resize(alone ? of : threads, lane.wide_h[0]);
  }
  int team = 1;
  const auto work = [&](int member, int members) __attribute__((noinline)) {
    RnnAccumulators* own = &(*acc)[member];
    if (alone) {
      for (int64_t task = member; task < tasks; task += members) {
        RnnLane& lane = (*lanes)[task % count];
        const int64_t block = task / count;
        const RnnPart part{.step = chunk.begin,
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
    for (RnnLane& lane : *lanes)
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
  std::vector<RnnLane> lanes(count);
  for (int i = 0; i < count; ++i)
    static_cast<const NativeRnn*>(directions[i].impl)->start(args, directions[i], &lanes[i]);
  const bool large = count * args.batch * macs_of_row() >= kParallelMacs;
  std::vector<RnnAccumulators> acc(large ? num_threads() : 1);
  for (RnnAccumulators& a : acc) a.resize(rnn_acc_size(args.batch, gemm_.row_multiple));
  const int64_t step_bytes = 4 * args.batch * hh_.columns();
  const int64_t steps =
      std::max<int64_t>({1, kChunkBytes / step_bytes, (kChunkRows + args.batch - 1) / args.batch});
  int current = static_cast<int>(acc.size());
  for (int64_t begin = 0; begin < args.steps; begin += steps) {
    const RnnChunk chunk{begin, std::min(args.steps, begin + steps)};
    for (RnnLane& lane : lanes)
      static_cast<const NativeRnn*>(lane.d.impl)->input_.run(args, lane.d.reverse, chunk, &lane.x);
    current = run_chunk(args, &lanes, chunk, current, &acc);
  }
}

Result<RnnImplPtr> make_rnn_native(const RnnProblem& p) {
  const kernels::DefaultFloatEnv env;  // for the sums of the biases
  auto impl = std::make_shared<NativeRnn>(p, best_isa());
  std::string reason;
  if (!impl->init_input(p, &reason)) return Refusal{reason};
  return RnnImplPtr(std::move(impl));
}

}  // namespace tae
