// linear with a block-sparse weight on our own kernels, static and dynamic.
//
// A task owns a tile of input rows and a range of 64-column chunks. It quantizes its
// rows, turns them (kernels/sparse.h), and multiplies chunk by chunk: the accumulators
// [column][row] are turned back into a tile [row][64] for the epilogue. One or two rows
// of an 8x1 weight need no turning: their bytes are gathered block by block, with VBMI
// segment by segment for the whole chunk.
#include <algorithm>
#include <string>

#include "core/cpu_features.h"
#include "core/parallel.h"
#include "engines/input_rows.h"
#include "engines/linear.h"
#include "engines/native/sparse_pack.h"
#include "engines/output_rule.h"
#include "kernels/epilogue.h"
#include "kernels/sparse.h"

namespace tae {
namespace {

using kernels::EpilogueParams;
using kernels::RowParams;
using native::kChunkRows;
using native::PackedSparse;

// Input rows up to which 8x1 blocks are multiplied row by row.
constexpr int64_t kGemvRows = 2;

// Below so many rows much of the vectors is empty, and a weight with a larger fraction inside
// blocks than `density` runs dense (1024x1024 on AVX512-VNNI, 2 threads).
struct BreakEven {
  int64_t rows;
  double density;
};
constexpr BreakEven k1x4[] = {{12, 0.08}, {32, 0.35}};
constexpr BreakEven k8x1[] = {{12, 0.11}, {32, 0.3}};
constexpr double kAllRows = 0.5;  // at any number of rows

int64_t rows_for_sparse(int64_t block_rows, double density) {
  int64_t rows = 0;
  for (const BreakEven& b : block_rows == 1 ? k1x4 : k8x1)
    if (density > b.density) rows = b.rows;
  return rows;
}

// Products of a quad and a row below which a second thread costs more than it gives.
constexpr int64_t kTaskProducts = 45'000;

class SparseLinear final : public LinearImpl {
 public:
  SparseLinear(const LinearProblem& p, LinearImplPtr dense, int64_t dense_below, Isa isa)
      : dense_(std::move(dense)),
        dense_below_(dense_below),
        in_place_(!p.dynamic && p.input_dtype == DType::qu8 && p.k % 4 == 0),
        input_(p),
        kernels_(kernels::sparse_kernels(isa)),
        weight_(p, kernels_.gather != nullptr),
        output_(p),
        epilogue_(kernels::epilogue(isa)),
        blocks_(p.sparse->blocks) {}

  void run(const LinearArgs& args) const override;
  const char* engine() const override { return "native"; }
  std::string description() const override {
    std::string text = std::string("native sparse ") + (weight_.by_rows() ? "1x4 " : "8x1 ") + kernels_.name +
                       ", " + std::to_string(blocks_) + " blocks";
    if (dense_)
      text += " (below " + std::to_string(dense_below_) + " rows dense " + dense_->description() + ")";
    return text;
  }
  size_t packed_bytes() const override {
    return weight_.bytes() + output_.bytes() + (dense_ ? dense_->packed_bytes() : 0);
  }

 private:
  struct Scratch {
    RowParams* params = nullptr;  // [tile rows]
    uint8_t* rows = nullptr;      // [tile rows][row_bytes]
    uint8_t* turned = nullptr;    // xt
    uint32_t* table = nullptr;    // instead of xt: [rows][table_size], or
    uint8_t* quads = nullptr;     // what is gathered for one row and chunk
    int32_t* sums = nullptr;      // [64 columns][tile rows]
    int32_t* raw = nullptr;       // [tile rows][64]
  };
  struct Call {
    const LinearArgs& args;
    InputRows::Call rows;
    EpilogueParams epilogue;
    bool gemv;
    int64_t tile_rows;
  };

  int64_t row_bytes() const {
    const int64_t multiple = weight_.by_rows() ? 64 : kernels::kSegment;
    return (4 * weight_.quads() + multiple - 1) / multiple * multiple;
  }
  int64_t table_size() const {
    return kernels_.to_table == nullptr ? 0 : row_bytes() * kernels::kTableLine / 4;
  }
  void run_tile(const Call& call, const Scratch& s, int64_t m0, int64_t rows, int64_t c0, int64_t c1) const;
  void multiply(const Call& call, const Scratch& s, int64_t rows, int64_t chunk) const;
  void multiply_columns(const Call& call, const Scratch& s, int64_t rows, int64_t chunk) const;
  void finish(const Call& call, const Scratch& s, int64_t m0, int64_t rows, int64_t chunk) const;

  LinearImplPtr dense_;  // for fewer rows than dense_below_, or null
  int64_t dense_below_;
  bool in_place_;  // rows are turned from where they lie
  InputRows input_;
  const kernels::SparseKernels& kernels_;
  PackedSparse weight_;
  OutputRule output_;
  const kernels::EpilogueFn epilogue_;
  int64_t blocks_;
};

// Accumulators of one chunk, as raw[row][64].
void SparseLinear::multiply(const Call& call, const Scratch& s, int64_t rows, int64_t chunk) const {
  if (weight_.by_rows()) {
    const int64_t part_bytes = kernels::kPartQuads * kernels::kQuadLine;
    for (int64_t part = 0; part < weight_.parts(); ++part)
      kernels_.rows4(weight_.rows4(chunk, part), s.turned + part * part_bytes, rows, part > 0, s.sums);
  } else {
    multiply_columns(call, s, rows, chunk);
    if (call.gemv) return;
  }
  const int64_t columns = std::min(kChunkRows, weight_.n() - chunk * kChunkRows);
  for (int64_t column = 0; column < columns; column += 16)
    for (int64_t m = 0; m < rows; m += 16)
      kernels_.transpose16(s.sums + column * call.tile_rows + m, call.tile_rows,
                           s.raw + m * kChunkRows + column, kChunkRows);
}

// 8x1 blocks: `sums`, or `raw` row by row.
void SparseLinear::multiply_columns(const Call& call, const Scratch& s, int64_t rows, int64_t chunk) const {
  const int64_t begin = weight_.first(chunk), end = weight_.first(chunk + 1);
  if (call.gemv) {
    for (int64_t m = 0; m < rows; ++m) {
      const void* input = s.table + m * table_size();
      if (kernels_.gather != nullptr) {
        kernels_.gather(weight_.gather(chunk), s.rows + m * row_bytes(), s.quads);
        input = s.quads;
      }
      kernels_.gemv8(weight_.rows8(begin), weight_.pairs8(begin), end - begin, input, s.raw + m * kChunkRows);
    }
    return;
  }
  for (int64_t i = begin; i < end; ++i)
    kernels_.rows8(weight_.rows8(i), s.turned, rows, s.sums + 8 * (i - begin) * call.tile_rows);
}

void SparseLinear::finish(const Call& call, const Scratch& s, int64_t m0, int64_t rows, int64_t chunk) const {
  const int64_t n = weight_.n(), n0 = chunk * kChunkRows;
  kernels::EpilogueTile t;
  t.raw = s.raw;
  t.raw_stride = kChunkRows;
  t.rows = rows;
  t.cols = std::min(kChunkRows, n - n0);
  t.n0 = n0;
  t.row = s.params;
  t.row_step = input_.dynamic() ? 1 : 0;
  output_.place(call.args, m0 * n + n0, n, &t);
  epilogue_(call.epilogue, t);
}

void SparseLinear::run_tile(const Call& call, const Scratch& s, int64_t m0, int64_t rows, int64_t c0,
                            int64_t c1) const {
  const uint8_t* x = s.rows;
  int64_t stride = row_bytes();
  if (in_place_ && !call.gemv) {
    stride = call.args.input_stride;
    x = static_cast<const uint8_t*>(call.args.input) + m0 * stride;
    s.params[0] = input_.static_params(call.args);
  } else {
    input_.quantize(call.rows, m0, rows, s.rows, stride, s.params);
  }
  if (!call.gemv)
    (weight_.by_rows() ? kernels_.to_quads : kernels_.to_bytes)(x, stride, rows, weight_.quads(), s.turned);
  else if (kernels_.to_table != nullptr)
    for (int64_t m = 0; m < rows; ++m)
      kernels_.to_table(s.rows + m * row_bytes(), row_bytes(), s.table + m * table_size());
  for (int64_t chunk = c0; chunk < c1; ++chunk) {
    multiply(call, s, rows, chunk);
    finish(call, s, m0, rows, chunk);
  }
}

void SparseLinear::run(const LinearArgs& args) const {
  if (args.m == 0 || weight_.n() == 0) return;
  if (dense_ && args.m < dense_below_) return dense_->run(args);
  EpilogueParams epilogue = output_.params(kernels::PackedWeight(), args);
  epilogue.k = weight_.k();
  epilogue.column_sum = weight_.column_sum();
  const int64_t tile = weight_.by_rows() ? kernels::kQuadRows : kernels::kByteRows;
  const Call call{args, input_.begin(args), epilogue, !weight_.by_rows() && args.m <= kGemvRows, tile};

  const int64_t line = weight_.by_rows() ? kernels::kQuadLine : 4 * kernels::kByteLine;
  const int64_t held = std::min(args.m, tile);
  const int64_t sums = 4 * kChunkRows * tile;
  const int64_t params = (held * static_cast<int64_t>(sizeof(RowParams)) + 63) / 64 * 64;
  const int64_t turned =
      call.gemv ? held * 4 * table_size() + weight_.gathered_bytes() : weight_.quads() * line;
  const int64_t bytes = 2 * sums + params + held * row_bytes() + turned;

  // Tiles first: a second task on the same tile quantizes and turns it again.
  const int64_t tiles = (args.m + tile - 1) / tile;
  const int64_t useful = std::min<int64_t>(weight_.products() * args.m / kTaskProducts + 1, num_threads());
  const int64_t columns = tiles % useful == 0 ? 1 : std::min(useful, weight_.chunks());
  const auto body = [&](int64_t begin, int64_t end) {
    const ScratchMemory memory(static_cast<size_t>(bytes));
    Scratch s;
    s.sums = reinterpret_cast<int32_t*>(memory.data());
    s.raw = reinterpret_cast<int32_t*>(memory.data() + sums);
    s.params = reinterpret_cast<RowParams*>(memory.data() + 2 * sums);
    s.rows = memory.data() + 2 * sums + params;
    s.turned = s.rows + held * row_bytes();
    s.table = reinterpret_cast<uint32_t*>(s.turned);
    s.quads = s.turned + held * 4 * table_size();
    // Tasks of one tile that fall to the same thread run as one.
    for (int64_t task = begin; task < end;) {
      const int64_t i = task / columns, j0 = task % columns;
      const int64_t j1 = std::min(j0 + end - task, columns);
      run_tile(call, s, i * tile, std::min(tile, args.m - i * tile), weight_.chunks() * j0 / columns,
               weight_.chunks() * j1 / columns);
      task += j1 - j0;
    }
  };
  if (useful <= 1 || tiles * columns == 1)
    body(0, tiles * columns);
  else
    parallel_for(tiles * columns, 1, body);
}

}  // namespace

Result<LinearImplPtr> make_sparse_linear_native(const LinearProblem& p) {
  const BlockSparse& w = *p.sparse;
  if (p.k > kMaxExactK) return refuse("k ", p.k, "; needs k <= ", kMaxExactK);
  if (p.post_ops.size() > kMaxPostOps)
    return refuse(p.post_ops.size(), " post-ops; needs at most ", kMaxPostOps);
  const double elements = static_cast<double>(p.n) * static_cast<double>(p.k);
  const double density = static_cast<double>(w.blocks * w.block_rows * w.block_columns) / elements;
  if (elements > 0 && density > kAllRows)
    return refuse("density ", density, " of ", w.block_rows, "x", w.block_columns,
                  " blocks is above the break-even of ", kAllRows, "; runs dense");
  LinearImplPtr dense;
  const int64_t dense_below = elements > 0 ? rows_for_sparse(w.block_rows, density) : 0;
  if (dense_below > 0) {
    LinearProblem plain = p;
    plain.sparse = nullptr;
    Result<LinearImplPtr> made = make_linear_native(plain);
    if (made) dense = std::move(made.value());
  }
  return LinearImplPtr(std::make_shared<SparseLinear>(p, std::move(dense), dense_below, best_isa()));
}

}  // namespace tae
