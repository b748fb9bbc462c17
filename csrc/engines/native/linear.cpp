// linear on our own kernels, static and dynamic.
//
// One parallel region a call: a task owns a range of rows and a range of weight
// panels. It brings a block of its rows into the u8 domain (L2-resident), runs
// the GEMM kernel on tiles of rows by panels, and the epilogue turns each int32
// tile, still in L1, into output. Tasks that share rows quantize them each for
// itself: cheaper than a barrier.
#include "engines/native/linear.h"

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "core/round_up.h"
#include "engines/input_rows.h"
#include "engines/native/byte_output.h"
#include "engines/native/plan.h"
#include "engines/output_rule.h"
#include "kernels/epilogue.h"
#include "kernels/gemm.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

using kernels::ByteFinish;
using kernels::EpilogueParams;
using kernels::EpilogueTile;
using kernels::FloatFinish;
using kernels::GemmBlock;
using kernels::GemmKernels;
using kernels::kPanelColumns;
using kernels::RowParams;

struct Span {
  const int8_t* data = nullptr;
  int64_t bytes = 0;
};

// Rows in the u8 domain as the kernel reads them.
struct QuantizedRows {
  const uint8_t* data = nullptr;
  int64_t stride = 0;
  const RowParams* params = nullptr;
  int64_t step = 1;  // 0: all rows share params[0]
};

class NativeLinear final : public LinearImpl {
 public:
  NativeLinear(const LinearProblem& p, Isa isa);

  void run(const LinearArgs& args) const override;
  const char* engine() const override { return "native"; }
  std::string description() const override;
  size_t packed_bytes() const override;

 private:
  struct Call {
    const LinearArgs& args;
    const GemmKernels& gemm;
    InputRows::Call rows;
    EpilogueParams epilogue;
    native::Blocks blocks;
    bool in_place = false;  // the kernel reads the input where it lies
    bool floats = false;    // the kernel writes the output, not the epilogue
    bool bytes = false;     // the same
  };
  // One thread's working memory.
  struct Scratch {
    int32_t* tile = nullptr;      // [tile_rows][64 * tile_panels], or the row of a GEMV
    RowParams* params = nullptr;  // [blocks.rows]
    uint8_t* rows = nullptr;      // [blocks.rows][row_bytes]
  };

  const GemmKernels& kernels_for(int64_t m) const;
  bool read_in_place(const GemmKernels& gemm, const LinearArgs& args) const;
  bool finishes_in_kernel(const GemmKernels& gemm) const;
  void run_task(const Call& call, const Scratch& scratch, int64_t r0, int64_t r1, int64_t p0,
                int64_t p1) const;
  Span input_span(const Call& call, int64_t begin, int64_t end) const;
  QuantizedRows place_rows(const Call& call, const Scratch& scratch, int64_t r0) const;
  void quantize_rows(const Call& call, const Scratch& scratch, int64_t r0, int64_t begin, int64_t end) const;
  void multiply_row(const Call& call, const Scratch& scratch, int64_t row, int64_t p0, int64_t p1) const;
  void multiply_rows(const Call& call, const Scratch& scratch, int64_t r0, int64_t rows, int64_t p0,
                     int64_t p1) const;
  void multiply_panel(const Call& call, GemmBlock& g, const QuantizedRows& rows, int64_t a_row, int64_t row,
                      int64_t panel, int64_t most_fetched) const;
  void finish(const Call& call, const QuantizedRows& a, int64_t a_row, int64_t row, int64_t rows, int64_t p0,
              int64_t p1, const int32_t* raw, int64_t raw_stride) const;

  // Bytes from one quantized row to the next: an odd number of cache lines, so
  // that the rows of a register tile fall into different L1 sets.
  int64_t row_bytes() const { return weight_.k_pad() | kernels::kKMultiple; }

  Isa isa_;
  InputRows input_;
  kernels::PackedWeight weight_;
  DType input_dtype_;
  OutputRule output_;
  native::ByteOutput bytes_;
  const GemmKernels& gemm_;
  const GemmKernels& gemm_few_rows_;
  const kernels::EpilogueFn epilogue_;
};

// AMX computes 16 rows whatever m is: for fewer than this the vector kernels win.
constexpr int64_t kAmxRows = 5;

NativeLinear::NativeLinear(const LinearProblem& p, Isa isa)
    : isa_(isa),
      input_(p),
      weight_(p.weight, p.n, p.k),
      input_dtype_(p.input_dtype),
      output_(p),
      bytes_(p, output_, weight_),
      gemm_(kernels::gemm_kernels(isa)),
      gemm_few_rows_(kernels::gemm_kernels(isa == Isa::amx ? Isa::avx512_vnni : isa)),
      epilogue_(kernels::epilogue(isa)) {}

std::string NativeLinear::description() const {
  std::string text = std::string("native ") + name_of(isa_) + " " + gemm_.name;
  if (isa_ == Isa::amx)
    text += " (below " + std::to_string(kAmxRows) + " rows avx512_vnni " + gemm_few_rows_.name + ")";
  return text;
}

size_t NativeLinear::packed_bytes() const { return weight_.bytes() + output_.bytes() + bytes_.bytes(); }

const GemmKernels& NativeLinear::kernels_for(int64_t m) const {
  return m < kAmxRows ? gemm_few_rows_ : gemm_;
}

// u8 rows whose sums nobody needs, when the kernel reads nothing behind the last.
bool NativeLinear::read_in_place(const GemmKernels& gemm, const LinearArgs& args) const {
  if (input_dtype_ != DType::qu8 || output_.has_weight_zero_point()) return false;
  if (weight_.k() % (4 * gemm.quad_multiple) != 0 || args.m % gemm.row_multiple != 0) return false;
  // A tile load of 16 rows at such a stride hits 4 of the 64 L1 sets; with several
  // row tiles the copy is cheaper (15 % of the call at 256x1024x1024).
  const bool collides = gemm.row_multiple > 1 && args.input_stride % 1024 == 0;
  return !(collides && args.m > gemm.row_unit);
}

// Plain float output: the accumulators need not pass through memory.
bool NativeLinear::finishes_in_kernel(const GemmKernels& gemm) const {
  return gemm.finishes && output_.dtype() == DType::f32 && !output_.has_post_ops() &&
         !output_.has_weight_zero_point();
}

// Rows [begin, end) of the input as it lies in memory; empty if they are not one piece.
Span NativeLinear::input_span(const Call& call, int64_t begin, int64_t end) const {
  if (call.in_place || call.args.input_stride != weight_.k() || begin >= end) return {};
  const int64_t bytes = weight_.k() * static_cast<int64_t>(size_of(input_dtype_));
  return {static_cast<const int8_t*>(call.args.input) + begin * bytes, (end - begin) * bytes};
}

// Where the kernel finds the rows from r0 on.
QuantizedRows NativeLinear::place_rows(const Call& call, const Scratch& scratch, int64_t r0) const {
  if (call.in_place) {
    scratch.params[0] = input_.static_params(call.args);
    const uint8_t* data = static_cast<const uint8_t*>(call.args.input);
    return {data + r0 * call.args.input_stride, call.args.input_stride, scratch.params, 0};
  }
  return {scratch.rows, row_bytes(), scratch.params, 1};
}

// Rows [begin, end) of those from r0 on.
void NativeLinear::quantize_rows(const Call& call, const Scratch& scratch, int64_t r0, int64_t begin,
                                 int64_t end) const {
  if (call.in_place) return;
  input_.quantize(call.rows, r0 + begin, end - begin, scratch.rows + begin * row_bytes(), row_bytes(),
                  scratch.params + begin);
}

// Output of rows [row, row + rows) and panels [p0, p1) from their accumulators.
void NativeLinear::finish(const Call& call, const QuantizedRows& a, int64_t a_row, int64_t row, int64_t rows,
                          int64_t p0, int64_t p1, const int32_t* raw, int64_t raw_stride) const {
  const int64_t n = weight_.n();
  const int64_t n0 = p0 * kPanelColumns;
  const int64_t n1 = p1 * kPanelColumns < n ? p1 * kPanelColumns : n;
  const int64_t element = row * n + n0;
  EpilogueTile t;
  t.raw = raw;
  t.raw_stride = raw_stride;
  t.rows = rows;
  t.cols = n1 - n0;
  t.n0 = n0;
  t.row = a.params + a_row * a.step;
  t.row_step = a.step;
  t.output =
      static_cast<uint8_t*>(call.args.output) + element * static_cast<int64_t>(size_of(output_.dtype()));
  t.output_stride = n;
  if (call.args.other != nullptr)
    t.other = static_cast<const uint8_t*>(call.args.other) +
              element * static_cast<int64_t>(size_of(call.args.other_dtype));
  t.other_stride = n;
  epilogue_(call.epilogue, t);
}

// Bytes of later weights that one block of several row tiles may fetch: more would
// fill the queue of misses and hold up the block's own loads. A single tile waits for
// nothing but the next panel and fetches all of it (16x4096x4096: 730 -> 493 us).
constexpr int64_t kMostFetched = 8192;

// Panels a GEMV computes between two calls of the epilogue: 8 KB of accumulators.
constexpr int64_t kGemvPanels = 32;

void NativeLinear::multiply_row(const Call& call, const Scratch& scratch, int64_t row, int64_t p0,
                                int64_t p1) const {
  const QuantizedRows a = place_rows(call, scratch, row);
  quantize_rows(call, scratch, row, 0, 1);
  for (int64_t p = p0; p < p1; p += kGemvPanels) {
    const int64_t end = p + kGemvPanels < p1 ? p + kGemvPanels : p1;
    call.gemm.gemv({.a = a.data,
                    .b = weight_.panel(p),
                    .panel_bytes = weight_.panel_bytes(),
                    .quads = call.blocks.quads,
                    .panels = end - p,
                    .c = scratch.tile});
    finish(call, a, 0, row, 1, p, end, scratch.tile, 0);
  }
}

void NativeLinear::multiply_rows(const Call& call, const Scratch& scratch, int64_t r0, int64_t rows,
                                 int64_t p0, int64_t p1) const {
  const QuantizedRows a = place_rows(call, scratch, r0);
  const int64_t tiles = ceil_div(rows, call.blocks.tile_rows);
  if (!call.gemm.fetches_input) quantize_rows(call, scratch, r0, 0, rows);
  for (int64_t p = p0; p < p1; p += call.blocks.tile_panels) {
    const int64_t end = p + call.blocks.tile_panels < p1 ? p + call.blocks.tile_panels : p1;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t r = t * call.blocks.tile_rows;
      const int64_t count = rows - r < call.blocks.tile_rows ? rows - r : call.blocks.tile_rows;
      // Rows are quantized just before the first panels meet them: their input is then in
      // L2, fetched during the tile before (24 MiniLM layers of 1024x384x384: 2 % faster).
      Span ahead;
      if (call.gemm.fetches_input && p == p0) {
        quantize_rows(call, scratch, r0, r, r + count);
        ahead = input_span(call, r0 + r + count, r0 + std::min(rows, r + count + call.blocks.tile_rows));
      }
      // Each row tile fetches its share of the panels that come after these.
      const int64_t from = weight_.panel_bytes() * t / tiles;
      const int64_t to = weight_.panel_bytes() * (t + 1) / tiles;
      for (int64_t i = p; i < end; ++i) {
        const int64_t next = i + call.blocks.tile_panels;
        GemmBlock g;
        g.a = a.data + r * a.stride;
        g.a_stride = a.stride;
        g.c = scratch.tile + (i - p) * kPanelColumns;
        g.c_stride = call.blocks.tile_panels * kPanelColumns;
        g.rows = count;
        if (tiles > 1 && next < p1) {
          g.next = weight_.panel(next) + from;
          g.next_bytes = to - from;
        } else if (tiles == 1 && i + 1 < p1) {
          g.next = weight_.panel(i + 1);
          g.next_bytes = weight_.panel_bytes();
        }
        g.input_bytes = ceil_div(ahead.bytes, end - p);
        g.input = ahead.data + (i - p) * g.input_bytes;
        multiply_panel(call, g, a, r, r0 + r, i, tiles == 1 ? weight_.panel_bytes() : kMostFetched);
      }
      if (!call.floats && !call.bytes)
        finish(call, a, r, r0 + r, count, p, end, scratch.tile, call.blocks.tile_panels * kPanelColumns);
    }
  }
}

// Runs the block over one panel, k block by k block. a_row, row: of the block's first
// row among the quantized rows and in the output.
void NativeLinear::multiply_panel(const Call& call, GemmBlock& g, const QuantizedRows& rows, int64_t a_row,
                                  int64_t row, int64_t panel, int64_t most_fetched) const {
  const int64_t n = weight_.n();
  const int64_t n0 = panel * kPanelColumns;
  const int64_t columns = std::min(n - n0, kPanelColumns);
  const int64_t element_bytes = static_cast<int64_t>(size_of(output_.dtype()));
  const int64_t quads = call.blocks.quads;
  const uint8_t* a = g.a;
  g.columns = columns;
  FloatFinish f;
  ByteFinish bytes;
  if (call.bytes) {
    bytes = bytes_.finish(panel);
    bytes.out = static_cast<uint8_t*>(call.args.output) + row * n + n0;
    bytes.out_stride = n;
    bytes.cols = columns;
    if (call.args.other != nullptr)
      bytes.addend = {static_cast<const uint8_t*>(call.args.other) + row * n + n0, n,
                      call.args.other_zero_point, call.args.other_scale, call.args.other_dtype == DType::qs8};
  }
  if (call.floats) {
    const EpilogueParams& e = call.epilogue;
    f.row = rows.params + a_row * rows.step;
    f.row_step = rows.step;
    f.column_sum = e.column_sum + n0;
    f.weight_scale = e.weight_scale + n0 * e.weight_scale_stride;
    f.weight_scale_stride = e.weight_scale_stride;
    if (e.bias != nullptr) f.bias = e.bias + n0;
    f.out = static_cast<float*>(call.args.output) + row * n + n0;
    f.out_stride = n;
    f.cols = columns;
  }
  // Each k block fetches its share.
  const auto share = [&](int64_t bytes) {
    return quads <= call.blocks.k_quads ? bytes : bytes * call.blocks.k_quads / quads;
  };
  const int64_t fetch = share(g.next_bytes), input_fetch = share(g.input_bytes);
  int64_t q = 0;
  do {
    const int64_t left = quads - q;
    const bool last = left <= call.blocks.k_quads;
    g.a = a + 4 * q;
    g.b = weight_.panel(panel) + q * kernels::kQuadBytes;
    g.quads = last ? left : call.blocks.k_quads;
    g.accumulate = q != 0;
    g.next_bytes = std::min(fetch, most_fetched);
    g.input_bytes = input_fetch;
    if (last) {
      g.out = static_cast<const uint8_t*>(call.args.output) + (row * n + n0) * element_bytes;
      g.out_stride = n * element_bytes;
      g.out_bytes = columns * element_bytes;
      if (call.floats) g.finish = &f;
      if (call.bytes) g.finish_bytes = &bytes;
    }
    call.gemm.block(g);
    g.next += fetch;
    g.input += input_fetch;
    q += call.blocks.k_quads;
  } while (q < quads);
}

void NativeLinear::run_task(const Call& call, const Scratch& scratch, int64_t r0, int64_t r1, int64_t p0,
                            int64_t p1) const {
  for (int64_t r = r0; r < r1; r += call.blocks.rows) {
    const int64_t rows = r1 - r < call.blocks.rows ? r1 - r : call.blocks.rows;
    if (rows == 1 && call.gemm.gemv != nullptr)
      multiply_row(call, scratch, r, p0, p1);
    else
      multiply_rows(call, scratch, r, rows, p0, p1);
  }
}

void NativeLinear::run(const LinearArgs& args) const {
  if (args.m == 0 || weight_.n() == 0) return;
  const GemmKernels& gemm = kernels_for(args.m);
  const int64_t panels = weight_.panels();
  const native::Plan plan =
      native::make_plan(args.m, panels, weight_.k_pad(), gemm.row_unit, gemm.row_multiple, num_threads());
  const native::Blocks blocks = native::choose_blocks(gemm, weight_, plan.rows_per_task, row_bytes());
  const Call call{args,
                  gemm,
                  input_.begin(args),
                  output_.params(weight_, args),
                  blocks,
                  read_in_place(gemm, args),
                  finishes_in_kernel(gemm),
                  gemm.finishes && bytes_.possible(args)};

  // The kernel may touch rows behind the last, up to a multiple of row_multiple.
  const int64_t tile_panels =
      std::max(round_up(blocks.tile_rows, gemm.row_multiple) * blocks.tile_panels, kGemvPanels);
  const int64_t tile_bytes = tile_panels * kPanelColumns * 4;
  const int64_t param_bytes = round_up(blocks.rows * static_cast<int64_t>(sizeof(RowParams)), 64);
  const int64_t rows_bytes = call.in_place ? 0 : round_up(blocks.rows, gemm.row_multiple) * row_bytes();

  const auto body = [&](int64_t begin, int64_t end) {
    const ScratchMemory memory(static_cast<size_t>(tile_bytes + param_bytes + rows_bytes));
    Scratch scratch;
    scratch.tile = reinterpret_cast<int32_t*>(memory.data());
    scratch.params = reinterpret_cast<RowParams*>(memory.data() + tile_bytes);
    scratch.rows = memory.data() + tile_bytes + param_bytes;
    const kernels::DefaultFloatEnv env;  // for what the kernel finishes
    if (gemm.begin != nullptr) gemm.begin();
    // Tasks of one row range that fall to the same thread run as one.
    for (int64_t task = begin; task < end;) {
      const int64_t i = task / plan.column_tasks;
      const int64_t j0 = task % plan.column_tasks;
      const int64_t j1 = std::min(j0 + end - task, plan.column_tasks);
      const int64_t r0 = i * plan.rows_per_task;
      run_task(call, scratch, r0, std::min(r0 + plan.rows_per_task, args.m), panels * j0 / plan.column_tasks,
               panels * j1 / plan.column_tasks);
      task += j1 - j0;
    }
    if (gemm.end != nullptr) gemm.end();
  };
  if (plan.tasks() == 1)
    body(0, 1);
  else
    parallel_for(plan.tasks(), 1, body);
}

// The reason why this engine cannot take the problem, or an empty string.
std::string reason_against(const LinearProblem& p, Isa isa) {
  if (!cpu_has(isa)) return std::string("CPU without ") + name_of(isa);
  const int64_t k_bound = has_weight_zero_point(p) ? kMaxExactKAsymmetricWeight : kMaxExactK;
  if (p.k > k_bound) return refuse("k ", p.k, "; needs k <= ", k_bound).reason;
  if (p.weight_scale_size != 1 && p.weight_scale_size != p.n)
    return refuse("weight_scale_size ", p.weight_scale_size, "; needs 1 or ", p.n).reason;
  const bool float_input = p.input_dtype == DType::f32 || p.input_dtype == DType::bf16;
  if (p.dynamic != float_input || (!p.dynamic && !is_quantized(p.input_dtype)))
    return refuse("input dtype ", name_of(p.input_dtype), "; needs ",
                  p.dynamic ? "f32 or bf16" : "qu8 or qs8")
        .reason;
  if (p.output_dtype == DType::s32 || (p.dynamic && is_quantized(p.output_dtype)))
    return refuse("output dtype ", name_of(p.output_dtype), "; needs ",
                  p.dynamic ? "f32 or bf16" : "qu8, qs8, f32 or bf16")
        .reason;
  if (p.post_ops.size() > kMaxPostOps)
    return refuse(p.post_ops.size(), " post-ops; needs at most ", kMaxPostOps).reason;
  return {};
}

}  // namespace

Result<LinearImplPtr> make_linear_native_at(const LinearProblem& p, Isa isa) {
  const std::string reason = reason_against(p, isa);
  if (!reason.empty()) return Refusal{reason};
  return LinearImplPtr(std::make_shared<NativeLinear>(p, isa));
}

Result<LinearImplPtr> make_linear_native(const LinearProblem& p) {
  return make_linear_native_at(p, best_isa());
}

}  // namespace tae
