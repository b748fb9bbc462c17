// Linear on oneDNN's matmul as an exact u8 x s8 -> s32 GEMM.
//
// oneDNN gets no zero points, scales, bias or post-ops: with those its rounding is
// its own. Rows come into the u8 domain by input_rows.h, weights into its blocked
// layout by kernels::PackedWeight (its reorder packs 0.1 GB/s), and
// kernels/epilogue.h turns the accumulators into output by the rule of
// engines/linear.h, to the bit as every other engine.
//
// The weight is cut into chunks of columns that stay in the second-level cache. A
// chunk times a block of rows is one call of a single-threaded primitive; threads
// share those calls, so nothing depends on oneDNN's own threading.
#include "engines/linear.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "core/parallel.h"
#include "core/round_up.h"
#include "engines/input_rows.h"
#include "engines/onednn/chunk_gemms.h"
#include "engines/onednn/onednn.h"
#include "engines/output_rule.h"
#include "kernels/epilogue.h"
#include "kernels/gemm.h"

namespace tae {
namespace {

using kernels::EpilogueParams;
using kernels::EpilogueTile;
using kernels::kPanelColumns;
using kernels::RowParams;
using onednn::ChunkGemms;
using onednn::Gemm;

// Multiply-adds below which sharing costs more than it saves (a fork and join
// takes about 3 us).
constexpr int64_t kSerialWork = 400'000;
constexpr int64_t kElementsPerShare = 65536;  // rows to quantize; copies: 8 times as many
// Up to so many rows a thread's columns are one call: oneDNN takes 0.5 us for each.
constexpr int64_t kFewRows = 16;
constexpr int64_t kMaxRawBytes = 512 << 10;
constexpr int64_t kMaxChunkPanels = 8;
// u8 rows that one thread keeps in the second-level cache beside a chunk.
constexpr int64_t kRowBytes = 512 << 10;

class OnednnLinear final : public LinearImpl {
 public:
  explicit OnednnLinear(const LinearProblem& p);
  // The reason why the primitives cannot be used, or empty.
  std::string prepare() { return gemms_.prepare(row_block_, chunk_panels_); }

  void run(const LinearArgs& args) const override;
  const char* engine() const override { return "onednn"; }
  std::string description() const override { return "onednn " + gemms_.implementation(); }
  size_t packed_bytes() const override { return weight_.bytes() + output_.bytes(); }

 private:
  // What the shares of one call have in common.
  struct Call {
    InputRows::Call input;
    EpilogueParams epilogue;
    int64_t chunk_panels = 0, chunks = 0;
    int64_t block_rows = 0;
    ChunkGemms block, tail;  // for block_rows rows, and for the rows that remain
  };
  struct Scratch;

  int64_t choose_chunk(int64_t m, int threads) const;
  int64_t choose_block(int64_t m, int64_t items, int threads) const;
  void share_rows(const Call& call, int threads) const;
  void share_columns(const Call& call) const;
  void multiply(const Call& call, const Scratch& s, const uint8_t* rows, const RowParams* params, int64_t m0,
                int64_t count, int64_t chunk) const;

  kernels::PackedWeight weight_;
  InputRows rows_;
  OutputRule output_;
  kernels::EpilogueFn epilogue_;

  int64_t stride_;            // of u8 rows
  int64_t chunk_panels_ = 1;  // of a chunk for many rows
  int64_t row_block_;         // the most rows of a primitive
  onednn::ChunkGemmCache gemms_;
};

OnednnLinear::OnednnLinear(const LinearProblem& p)
    : weight_(p.weight, p.n, p.k),
      rows_(p),
      output_(p),
      epilogue_(kernels::epilogue(best_isa())),
      stride_(Gemm::src_stride(weight_.k_pad())),
      // AMX needs tall blocks to hide the loading of its tiles.
      row_block_(usable(Isa::amx) ? 128 : 64),
      gemms_(weight_.k_pad(), weight_.panels()) {
  // A chunk and the rows it meets share the second-level cache. AMX computes so fast
  // that it pays to load rows for more columns.
  const int64_t panels = weight_.panels();
  const int64_t chunk_bytes = usable(Isa::amx) ? l2_bytes() / 2 : l2_bytes() / 8;
  chunk_panels_ = std::clamp<int64_t>(chunk_bytes / weight_.panel_bytes(), 1, kMaxChunkPanels);
  // An equal number of chunks for each thread.
  int64_t chunks = ceil_div(panels, chunk_panels_);
  const int64_t threads = p.k * p.n < kSerialWork ? 1 : num_threads();
  if (chunks < 4 * threads) chunks = std::min(panels, round_up(chunks, threads));
  chunk_panels_ = ceil_div(panels, chunks);
}

// One thread's accumulators of a block and oneDNN's scratchpad, and u8 rows with
// their parameters where `rows` is not 0.
struct OnednnLinear::Scratch {
  Scratch(const OnednnLinear& owner, const Call& call, int64_t rows) : memory(layout(owner, call, rows)) {
    uint8_t* at = memory.data();
    raw = reinterpret_cast<int32_t*>(at);
    at += raw_bytes(call);
    scratchpad = at;
    at += scratchpad_bytes(call);
    params = reinterpret_cast<RowParams*>(at);
    at += round_up(rows * static_cast<int64_t>(sizeof(RowParams)), 64);
    input = at;
  }
  // Rows of the tallest primitive of the call: what one execution may read and write.
  static int64_t tallest(const Call& call) {
    int64_t rows = 0;
    for (const ChunkGemms* g : {&call.block, &call.tail})
      if (g->full != nullptr) rows = std::max({rows, g->full->rows(), g->last->rows()});
    return rows;
  }
  static int64_t raw_bytes(const Call& call) { return tallest(call) * call.chunk_panels * kPanelColumns * 4; }
  static int64_t scratchpad_bytes(const Call& call) {
    size_t bytes = 0;
    for (const ChunkGemms* g : {&call.block, &call.tail})
      for (const auto& gemm : {g->full, g->last})
        if (gemm != nullptr) bytes = std::max(bytes, gemm->scratchpad_bytes());
    return round_up(static_cast<int64_t>(bytes), 64);
  }
  static size_t layout(const OnednnLinear& owner, const Call& call, int64_t rows) {
    return static_cast<size_t>(raw_bytes(call) + scratchpad_bytes(call) +
                               round_up(rows * static_cast<int64_t>(sizeof(RowParams)), 64) +
                               padded_rows(call, rows) * owner.stride_);
  }
  // The last block is read up to the height of its primitive, which may be taller
  // than the block when a smaller one has no JIT implementation.
  static int64_t padded_rows(const Call& call, int64_t rows) { return rows == 0 ? 0 : rows + tallest(call); }

  ScratchMemory memory;
  int32_t* raw;
  uint8_t* scratchpad;
  RowParams* params;
  uint8_t* input;
};

void OnednnLinear::run(const LinearArgs& args) const {
  if (args.m < 1) return;
  const int threads = args.m * weight_.k() * weight_.n() < kSerialWork ? 1 : num_threads();
  // Whichever of rows and weight is larger is cut, so that each thread reads its
  // part of it and all of the smaller one.
  const bool by_rows = threads == 1 || (args.m >= weight_.n() && args.m >= row_block_ * threads);
  Call call{rows_.begin(args), output_.params(weight_, args), 0, 0, 0, {}, {}};
  call.chunk_panels = choose_chunk(args.m, threads);
  call.chunks = ceil_div(weight_.panels(), call.chunk_panels);
  call.block_rows = choose_block(args.m, by_rows ? 1 : call.chunks, threads);
  if (args.m >= call.block_rows) call.block = gemms_.get(call.block_rows, call.chunk_panels);
  call.tail = gemms_.get(args.m % call.block_rows, call.chunk_panels);
  if (by_rows)
    share_rows(call, threads);
  else
    share_columns(call);
}

int64_t OnednnLinear::choose_chunk(int64_t m, int threads) const {
  if (m > kFewRows) return chunk_panels_;
  const int64_t panels = weight_.panels();
  const int64_t most = std::max<int64_t>(1, kMaxRawBytes / (m * kPanelColumns * 4));
  const int64_t rounds = ceil_div(panels, threads * most);
  return ceil_div(panels, threads * rounds);
}

// Rows of a block such that the busiest thread has the fewest; each block makes
// `items` units of work.
int64_t OnednnLinear::choose_block(int64_t m, int64_t items, int threads) const {
  int64_t best = row_block_, best_rows = 0;
  for (const int64_t block : {row_block_, row_block_ * 3 / 4, row_block_ / 2}) {
    const int64_t blocks = ceil_div(m, block);
    const int64_t busiest = ceil_div(blocks * items, threads) * std::min(block, m);
    if (best_rows != 0 && busiest >= best_rows) continue;
    best = block;
    best_rows = busiest;
  }
  return best;
}

// Rows [m0, m0 + count), at most a block, times one chunk.
void OnednnLinear::multiply(const Call& call, const Scratch& s, const uint8_t* rows, const RowParams* params,
                            int64_t m0, int64_t count, int64_t chunk) const {
  const LinearArgs& args = *call.input.args;
  const ChunkGemms& g = count == call.block_rows ? call.block : call.tail;
  const Gemm& gemm = chunk == call.chunks - 1 ? *g.last : *g.full;
  const int64_t panel = chunk * call.chunk_panels, n0 = panel * kPanelColumns;
  gemm.run(rows, weight_.panel(panel), s.raw, s.scratchpad);

  EpilogueTile t;
  t.raw = s.raw;
  t.raw_stride = gemm.columns();
  t.rows = count;
  t.cols = std::min(gemm.columns(), weight_.n() - n0);
  t.n0 = n0;
  t.row = params;
  output_.place(args, m0 * weight_.n() + n0, weight_.n(), &t);
  epilogue_(call.epilogue, t);
}

// Each share takes a range of blocks of rows, and with it passes over the weight
// once: for each chunk, all its rows.
void OnednnLinear::share_rows(const Call& call, int threads) const {
  const int64_t m = call.input.args->m;
  const int64_t block = call.block_rows, blocks = ceil_div(m, block);
  const int64_t group =
      std::max<int64_t>(1, std::min(ceil_div(blocks, threads), kRowBytes / (stride_ * block)));
  const auto share = [&](int64_t begin, int64_t end) {
    const Scratch s(*this, call, std::min(m, group * block));
    for (int64_t b = begin; b < end; b += group) {
      const int64_t m0 = b * block;
      const int64_t m1 = std::min(m, std::min(b + group, end) * block);
      rows_.quantize(call.input, m0, m1 - m0, s.input, stride_, s.params);
      for (int64_t chunk = 0; chunk < call.chunks; ++chunk)
        for (int64_t i = m0; i < m1; i += block)
          multiply(call, s, s.input + (i - m0) * stride_, s.params + (i - m0), i, std::min(block, m1 - i),
                   chunk);
    }
  };
  if (threads == 1)
    share(0, blocks);
  else
    parallel_for(blocks, 1, share);
}

// All rows first, then each share takes chunks. The u8 rows are fewer than columns
// here, that is, smaller than the weight.
void OnednnLinear::share_columns(const Call& call) const {
  const int64_t m = call.input.args->m;
  const Scratch all(*this, call, m);
  const int64_t share = rows_.dynamic() ? kElementsPerShare : 8 * kElementsPerShare;
  parallel_for(m, std::max<int64_t>(1, share / weight_.k_pad()), [&](int64_t begin, int64_t end) {
    rows_.quantize(call.input, begin, end - begin, all.input + begin * stride_, stride_, all.params + begin);
  });
  const int64_t block = call.block_rows, blocks = ceil_div(m, block);
  // Chunk by chunk, so that a share's part of the weight is read once.
  parallel_for(call.chunks * blocks, 1, [&](int64_t begin, int64_t end) {
    const Scratch own(*this, call, 0);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t i = item % blocks * block;
      multiply(call, own, all.input + i * stride_, all.params + i, i, std::min(block, m - i), item / blocks);
    }
  });
}

}  // namespace

Result<LinearImplPtr> make_linear_onednn(const LinearProblem& p) {
  if (std::string error = onednn::init_error(); !error.empty()) return refuse(error);
  if (p.k < 1 || p.n < 1) return refuse("empty weight [", p.n, ", ", p.k, "]");
  const bool float_input = p.input_dtype == DType::f32 || p.input_dtype == DType::bf16;
  if (p.input_dtype == DType::s32 || p.dynamic != float_input)
    return refuse("input dtype ", name_of(p.input_dtype));
  if (p.output_dtype == DType::s32 || (p.dynamic && is_quantized(p.output_dtype)))
    return refuse("output dtype ", name_of(p.output_dtype));
  if (p.post_ops.size() > static_cast<size_t>(kMaxPostOps))
    return refuse(p.post_ops.size(), " post-ops; needs at most ", kMaxPostOps);
  const int64_t k_limit = has_weight_zero_point(p) ? kMaxExactKAsymmetricWeight : kMaxExactK;
  if (p.k > k_limit) return refuse("k ", p.k, "; int32 is exact up to ", k_limit);
  auto impl = std::make_shared<OnednnLinear>(p);
  if (std::string error = impl->prepare(); !error.empty()) return refuse(error);
  return LinearImplPtr(std::move(impl));
}

}  // namespace tae
