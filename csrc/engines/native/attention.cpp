// Attention on the GEMM kernels: a task is a range of queries of one matrix. The thread packs keys
// and values when the matrix changes; then a tile of queries goes through both products.
//
//   score: a in u8 (q), b in s8 (k): raw - zp_q * column_sum - zp_k * (row_sum - width * zp_q)
//   value: a = weights, zero point 0, b in s8 (v): raw - zp_v * sum of the weights
#include "engines/attention.h"

#include <algorithm>

#include "core/parallel.h"
#include "core/round_up.h"
#include "engines/input_rows.h"
#include "kernels/attention.h"
#include "kernels/gemm.h"
#include "kernels/matmul.h"
#include "kernels/rows.h"

namespace tae {
namespace {

using kernels::GemmBlock;
using kernels::GemmKernels;
using kernels::kPanelColumns;
using kernels::kQuadBytes;

int32_t wrapped(int64_t value) { return static_cast<int32_t>(static_cast<uint64_t>(value)); }

// Queries that a matrix may be cut into: fewer would not pay for packing keys and values again.
constexpr int64_t kLeastQueries = 48;
// Bytes of scores of a tile of queries.
constexpr int64_t kScoreBytes = 256 << 10;

// One of the two products: rows of `k` bytes times packed columns.
struct Product {
  int64_t k = 0, columns = 0;
  int64_t quads = 0, block_quads = 0, panels = 0, row_bytes = 0;

  Product() = default;
  Product(const GemmKernels& gemm, int64_t depth, int64_t n)
      : k(depth),
        columns(n),
        quads(round_up(ceil_div(depth, 4), gemm.quad_multiple)),
        panels(ceil_div(n, kPanelColumns)),
        // An odd number of cache lines, so that rows of a tile fall into different L1 sets.
        row_bytes(round_up(4 * quads, 64) | 64) {
    const int64_t blocks = std::max<int64_t>(1, ceil_div(4 * quads, gemm.k_block));
    block_quads = std::max<int64_t>(1, round_up(ceil_div(quads, blocks), gemm.quad_multiple));
  }
  int64_t stride() const { return panels * kPanelColumns; }
  int64_t packed_bytes() const { return panels * quads * kQuadBytes; }
};

class Attention {
 public:
  Attention(const AttentionProblem& p, Isa isa);
  void run() const;

 private:
  // One thread's working memory and what it holds.
  struct Scratch {
    int8_t *keys, *values;  // panels
    uint8_t* ones;          // [row_bytes], where column sums are needed
    int32_t* column_term;   // [stride of scores]
    int32_t *scores, *sums;
    uint8_t *queries, *weights;
    float* row;  // [keys]
    int64_t packed = -1;
  };

  Scratch place(uint8_t* memory, int64_t* bytes) const;
  void pack(Scratch& s, int64_t matrix) const;
  void pack_panels(const Product& product, const kernels::PanelSource& source, int8_t* panels) const;
  void multiply(const Product& product, const uint8_t* rows, int64_t stride, int64_t count,
                const int8_t* panels, int32_t* to) const;
  void run_tile(const Scratch& s, int64_t matrix, int64_t first, int64_t count) const;

  const AttentionProblem& p_;
  const Isa isa_;
  const GemmKernels& gemm_;
  const kernels::RowKernels& row_kernels_;
  const kernels::AttentionKernels& kernels_;
  Product score_, value_;
  int32_t q_zero_, k_zero_, v_zero_;  // in the u8, the s8 and the s8 domain
  int64_t tile_rows_, task_rows_, row_tasks_;
};

Attention::Attention(const AttentionProblem& p, Isa isa)
    : p_(p),
      isa_(isa),
      gemm_(kernels::gemm_kernels(isa)),
      row_kernels_(kernels::row_kernels(isa)),
      kernels_(kernels::attention_kernels(isa)),
      score_(gemm_, p.width, p.keys),
      value_(gemm_, p.keys, p.value_width),
      q_zero_(p.q.zero_point + (p.q.dtype == DType::qs8 ? 128 : 0)),
      k_zero_(p.k.zero_point - (p.k.dtype == DType::qs8 ? 0 : 128)),
      v_zero_(p.v.zero_point - (p.v.dtype == DType::qs8 ? 0 : 128)) {
  const int64_t row = std::max<int64_t>(1, 4 * score_.stride());
  tile_rows_ = std::clamp<int64_t>(kScoreBytes / row, 1, std::min(gemm_.row_block, p.queries));
  task_rows_ = p.queries;
  const int threads = num_threads();
  if (threads > 1 && p.batch < 8 * threads && p.batch % threads != 0 && p.queries >= 2 * kLeastQueries) {
    const int64_t cuts = std::min(ceil_div(4 * threads, p.batch), p.queries / kLeastQueries);
    task_rows_ = round_up(ceil_div(p.queries, cuts), tile_rows_);
  }
  row_tasks_ = ceil_div(p.queries, task_rows_);
}

Attention::Scratch Attention::place(uint8_t* memory, int64_t* bytes) const {
  int64_t end = 0;
  const auto next = [&](int64_t size) {
    uint8_t* at = memory == nullptr ? nullptr : memory + end;
    end += round_up(size, 64);
    return at;
  };
  // Column sums are computed in the tile of scores: row_multiple rows.
  const int64_t rows = round_up(tile_rows_, gemm_.row_multiple);
  Scratch s;
  s.keys = reinterpret_cast<int8_t*>(next(score_.packed_bytes()));
  s.values = reinterpret_cast<int8_t*>(next(value_.packed_bytes()));
  s.ones = next(score_.row_bytes);
  s.column_term = reinterpret_cast<int32_t*>(next(score_.stride() * 4));
  s.scores = reinterpret_cast<int32_t*>(next(rows * score_.stride() * 4));
  s.sums = reinterpret_cast<int32_t*>(next(rows * value_.stride() * 4));
  s.queries = next(rows * score_.row_bytes);
  s.weights = next(rows * value_.row_bytes);
  s.row = reinterpret_cast<float*>(next(p_.keys * 4));
  if (bytes != nullptr) *bytes = end;
  return s;
}

void Attention::pack_panels(const Product& product, const kernels::PanelSource& source,
                            int8_t* panels) const {
  kernels::PanelSource part = source;
  for (int64_t i = 0; i < product.panels; ++i) {
    const int64_t column = i * kPanelColumns;
    part.data = source.data + column * source.column_stride;
    part.columns = std::min(product.columns - column, kPanelColumns);
    kernels::pack_panel(part, product.quads, panels + i * product.quads * kQuadBytes, isa_);
  }
}

void Attention::pack(Scratch& s, int64_t matrix) const {
  s.packed = matrix;
  pack_panels(score_,
              {.data = p_.k.data + p_.k.offset[matrix],
               .k = p_.width,
               .row_stride = 1,
               .column_stride = p_.k.row_stride,
               .is_unsigned = p_.k.dtype == DType::qu8},
              s.keys);
  pack_panels(value_,
              {.data = p_.v.data + p_.v.offset[matrix],
               .k = p_.keys,
               .row_stride = p_.v.row_stride,
               .column_stride = 1,
               .is_unsigned = p_.v.dtype == DType::qu8},
              s.values);
  std::fill_n(s.column_term, score_.stride(), 0);
  if (q_zero_ == 0) return;
  multiply(score_, s.ones, 0, 1, s.keys, s.scores);
  for (int64_t i = 0; i < score_.stride(); ++i) s.column_term[i] = wrapped(int64_t{q_zero_} * s.scores[i]);
}

// Raw sums of `count` rows and all panels.
void Attention::multiply(const Product& product, const uint8_t* rows, int64_t stride, int64_t count,
                         const int8_t* panels, int32_t* to) const {
  for (int64_t i = 0; i < product.panels; ++i) {
    int64_t q = 0;
    do {
      GemmBlock g;
      g.a = rows + 4 * q;
      g.a_stride = stride;
      g.b = panels + (i * product.quads + q) * kQuadBytes;
      g.quads = std::min(product.quads - q, product.block_quads);
      g.c = to + i * kPanelColumns;
      g.c_stride = product.stride();
      g.rows = count;
      g.accumulate = q != 0;
      gemm_.block(g);
      q += product.block_quads;
    } while (q < product.quads);
  }
}

void Attention::run_tile(const Scratch& s, int64_t matrix, int64_t first, int64_t count) const {
  int32_t row_term[64];  // no kernel has more rows in a tile
  const uint8_t* q = p_.q.data + p_.q.offset[matrix] + first * p_.q.row_stride;
  for (int64_t r = 0; r < count; ++r) {
    const uint8_t* row = q + r * p_.q.row_stride;
    uint8_t* to = s.queries + r * score_.row_bytes;
    const int32_t sum = p_.q.dtype == DType::qs8 ? row_kernels_.shift_s8(reinterpret_cast<const int8_t*>(row),
                                                                         p_.width, to, score_.row_bytes)
                                                 : row_kernels_.copy_u8(row, p_.width, to, score_.row_bytes);
    row_term[r] = wrapped(int64_t{k_zero_} * (sum - p_.width * q_zero_));
  }
  multiply(score_, s.queries, score_.row_bytes, count, s.keys, s.scores);
  int32_t weights[64];
  for (int64_t r = 0; r < count; ++r) {
    kernels::ScoreRow row;
    row.raw = s.scores + r * score_.stride();
    row.column_term = s.column_term;
    row.row_term = row_term[r];
    row.scale = p_.scale;
    if (p_.mask != nullptr) row.mask = p_.mask + p_.mask_offset[matrix] + (first + r) * p_.mask_row_stride;
    row.count = p_.causal ? std::min(p_.keys, first + r + 1) : p_.keys;
    row.scratch = s.row;
    weights[r] = kernels_.weights(row, s.weights + r * value_.row_bytes, value_.row_bytes);
  }
  multiply(value_, s.weights, value_.row_bytes, count, s.values, s.sums);
  const int64_t step = p_.value_width * static_cast<int64_t>(size_of(p_.finish.dtype));
  uint8_t* dst = static_cast<uint8_t*>(p_.output) + (matrix * p_.queries + first) * step;
  for (int64_t r = 0; r < count; ++r) {
    kernels::ValueRow row;
    row.raw = s.sums + r * value_.stride();
    row.weights = weights[r];
    row.zero_point = v_zero_;
    row.scale = p_.v.scale;
    row.count = p_.value_width;
    kernels_.values(p_.finish, row, dst + r * step);
  }
}

void Attention::run() const {
  int64_t bytes = 0;
  place(nullptr, &bytes);
  parallel_for(p_.batch * row_tasks_, 1, [&](int64_t begin, int64_t end) {
    const ScratchMemory memory(static_cast<size_t>(bytes));
    Scratch s = place(memory.data(), nullptr);
    std::fill_n(s.ones, score_.row_bytes, uint8_t{1});
    if (gemm_.begin != nullptr) gemm_.begin();
    for (int64_t task = begin; task < end; ++task) {
      const int64_t matrix = task / row_tasks_, from = task % row_tasks_ * task_rows_;
      const int64_t to = std::min(from + task_rows_, p_.queries);
      if (s.packed != matrix) pack(s, matrix);
      for (int64_t r = from; r < to; r += tile_rows_) run_tile(s, matrix, r, std::min(to - r, tile_rows_));
    }
    if (gemm_.end != nullptr) gemm_.end();
  });
}

void run(const AttentionProblem& p) { Attention(p, best_isa()).run(); }

}  // namespace

Result<AttentionRun> find_attention_native(const AttentionProblem&) { return AttentionRun{run}; }

}  // namespace tae
