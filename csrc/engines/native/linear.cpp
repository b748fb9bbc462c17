// linear on our own kernels, static and dynamic.
//
// One parallel region a call: a task owns a range of rows and a range of weight
// panels. It brings a block of its rows into the u8 domain (L2-resident), runs
// the GEMM kernel on [row block, panel], and the epilogue turns the int32 tile,
// still in L1, into output. Tasks that share rows quantize them each for itself:
// cheaper than a barrier.
#include "engines/native/linear.h"

#include <cstring>
#include <mutex>
#include <vector>

#include "core/parallel.h"
#include "engines/native/plan.h"
#include "engines/native/scratch.h"
#include "kernels/choose_qparams.h"
#include "kernels/epilogue.h"
#include "kernels/gemm.h"
#include "kernels/rows.h"

namespace tae {
namespace {

using kernels::EpilogueParams;
using kernels::EpilogueTile;
using kernels::GemmBlock;
using kernels::GemmKernels;
using kernels::kPanelColumns;
using kernels::QParams;
using kernels::RowParams;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

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
    EpilogueParams epilogue;
    QParams tensor;  // dynamic, tensor rule
    int64_t block_rows = 0;  // rows quantized at a time: they stay in L2
    // The GEMM runs over tiles of rows by panels whose accumulators stay in L1 while
    // the epilogue reads them. Wide ones: the output then is written in long runs.
    int64_t tile_rows = 0;
    int64_t tile_panels = 0;
    int64_t a_stride = 0;
    int64_t quads = 0;
    int64_t block_quads = 0;  // quads of one k block: k_block, or less so that all are alike
    bool in_place = false;
  };
  // One thread's working memory.
  struct Scratch {
    uint8_t* rows = nullptr;
    RowParams* params = nullptr;
    int32_t* tile = nullptr;
  };

  const GemmKernels& choose_kernels(int64_t m) const;
  Call prepare_call(const LinearArgs& args) const;
  QParams tensor_qparams(const LinearArgs& args) const;
  void choose_blocks(Call& call, int64_t task_rows) const;
  void run_task(const Call& call, const Scratch& scratch, int64_t r0, int64_t r1, int64_t p0,
                int64_t p1) const;
  QuantizedRows prepare_rows(const Call& call, const Scratch& scratch, int64_t r0,
                             int64_t rows) const;
  RowParams prepare_dynamic(const Call& call, int64_t row, uint8_t* dst) const;
  RowParams prepare_static(const Call& call, int64_t row, uint8_t* dst) const;
  void multiply_row(const Call& call, const Scratch& scratch, const QuantizedRows& a, int64_t row,
                    int64_t p0, int64_t p1) const;
  void multiply_rows(const Call& call, const Scratch& scratch, const QuantizedRows& a, int64_t r0,
                     int64_t rows, int64_t p0, int64_t p1) const;
  void multiply_panel(const Call& call, GemmBlock g, int64_t row, int64_t panel) const;
  void finish(const Call& call, const QuantizedRows& a, int64_t a_row, int64_t row, int64_t rows,
              int64_t p0, int64_t p1, const int32_t* raw, int64_t raw_stride) const;

  // Bytes from one quantized row to the next: an odd number of cache lines, so
  // that the rows of a register tile fall into different L1 sets.
  int64_t scratch_stride() const { return weight_.k_pad() | kernels::kKMultiple; }

  Isa isa_;
  kernels::PackedWeight weight_;
  std::vector<float> scale_;  // 1 or n
  std::vector<float> bias_;   // n or empty
  std::vector<int32_t> weight_zero_point_;  // n, or empty when all are 0
  bool dynamic_;
  DynamicQuant quant_;
  DType input_dtype_;
  DType output_dtype_;
  float input_scale_;
  int32_t input_zero_point_;  // u8 domain
  float output_scale_;
  int32_t output_zero_point_;
  PostOps post_ops_;
  const GemmKernels& gemm_;
  const GemmKernels& gemm_few_rows_;
  const kernels::RowKernels& row_kernels_;
  const kernels::EpilogueFn epilogue_;
};

// AMX computes 16 rows whatever m is; for few rows the vector kernels win.
constexpr int64_t kAmxRows = 5;

NativeLinear::NativeLinear(const LinearProblem& p, Isa isa)
    : isa_(isa),
      weight_(p.weight, p.n, p.k),
      scale_(p.weight_scale, p.weight_scale + p.weight_scale_size),
      dynamic_(p.dynamic),
      quant_(p.dynamic_quant),
      input_dtype_(p.input_dtype),
      output_dtype_(p.output_dtype),
      input_scale_(p.input_scale),
      input_zero_point_(p.input_zero_point + (p.input_dtype == DType::qs8 ? 128 : 0)),
      output_scale_(p.output_scale),
      output_zero_point_(p.output_zero_point),
      post_ops_(p.post_ops),
      gemm_(kernels::gemm_kernels(isa)),
      gemm_few_rows_(kernels::gemm_kernels(isa == Isa::amx ? Isa::avx512_vnni : isa)),
      row_kernels_(kernels::row_kernels(isa)),
      epilogue_(kernels::epilogue(isa)) {
  if (p.bias != nullptr) bias_.assign(p.bias, p.bias + p.n);
  bool asymmetric = false;
  if (p.weight_zero_point != nullptr)
    for (int64_t i = 0; i < p.weight_scale_size; ++i) asymmetric |= p.weight_zero_point[i] != 0;
  if (asymmetric) {
    weight_zero_point_.resize(static_cast<size_t>(p.n));
    for (int64_t i = 0; i < p.n; ++i)
      weight_zero_point_[static_cast<size_t>(i)] =
          p.weight_zero_point[p.weight_scale_size == 1 ? 0 : i];
  }
}

std::string NativeLinear::description() const {
  return std::string("native ") + name_of(isa_) + " " + gemm_.name;
}

size_t NativeLinear::packed_bytes() const {
  return weight_.bytes() + 4 * (scale_.size() + bias_.size() + weight_zero_point_.size());
}

const GemmKernels& NativeLinear::choose_kernels(int64_t m) const {
  return m < kAmxRows ? gemm_few_rows_ : gemm_;
}

QParams NativeLinear::tensor_qparams(const LinearArgs& args) const {
  const int64_t k = weight_.k();
  float mn = 0.f, mx = 0.f;
  std::mutex mutex;
  const int64_t grain = 1 + (int64_t{1} << 17) / (k + 1);
  parallel_for(args.m, grain, [&](int64_t begin, int64_t end) {
    float lo = 0.f, hi = 0.f;
    for (int64_t r = begin; r < end; ++r) {
      float row_lo, row_hi;
      if (input_dtype_ == DType::f32)
        row_kernels_.min_max_f32(static_cast<const float*>(args.input) + r * args.input_stride, k,
                                 &row_lo, &row_hi);
      else
        row_kernels_.min_max_bf16(
            static_cast<const uint16_t*>(args.input) + r * args.input_stride, k, &row_lo, &row_hi);
      // Written so that a NaN, once there, stays.
      if (!(row_lo >= lo)) lo = row_lo;
      if (!(row_hi <= hi)) hi = row_hi;
      if (lo != lo) break;
    }
    std::lock_guard<std::mutex> lock(mutex);
    if (mn == mn && !(lo >= mn)) mn = lo;
    if (mx == mx && !(hi <= mx)) mx = hi;
  });
  return kernels::tensor_qparams(mn, mx, quant_.symmetric, quant_.reduce_range);
}

NativeLinear::Call NativeLinear::prepare_call(const LinearArgs& args) const {
  Call call{.args = args, .gemm = choose_kernels(args.m), .epilogue = {}, .tensor = {}};
  EpilogueParams& e = call.epilogue;
  e.k = weight_.k();
  e.weight_scale = scale_.data();
  e.weight_scale_stride = scale_.size() == 1 ? 0 : 1;
  e.bias = bias_.empty() ? nullptr : bias_.data();
  e.column_sum = weight_.column_sum();
  e.weight_zero_point = weight_zero_point_.empty() ? nullptr : weight_zero_point_.data();
  e.post_ops = post_ops_.data();
  e.num_post_ops = static_cast<int>(post_ops_.size());
  e.output_dtype = output_dtype_;
  e.output_scale = output_scale_;
  e.output_zero_point = output_zero_point_;
  e.other_dtype = args.other_dtype;
  e.other_scale = args.other_scale;
  e.other_zero_point = args.other_zero_point;
  if (dynamic_ && !quant_.per_row) call.tensor = tensor_qparams(args);

  call.a_stride = scratch_stride();
  call.quads = round_up(round_up(weight_.k(), 4) / 4, call.gemm.quad_multiple);
  const int64_t blocks = round_up(4 * call.quads, call.gemm.k_block) / call.gemm.k_block;
  call.block_quads =
      blocks < 2 ? call.quads
                 : round_up((call.quads + blocks - 1) / blocks, call.gemm.quad_multiple);
  // u8 input can be read where it lies when the kernel reads nothing beyond it.
  call.in_place = !dynamic_ && input_dtype_ == DType::qu8 && weight_zero_point_.empty() &&
                  weight_.k() == 4 * call.quads && args.m % call.gemm.row_multiple == 0;
  return call;
}

RowParams NativeLinear::prepare_dynamic(const Call& call, int64_t row, uint8_t* dst) const {
  const int64_t k = weight_.k();
  const int64_t offset = row * call.args.input_stride;
  const float* f32 = static_cast<const float*>(call.args.input) + offset;
  const uint16_t* bf16 = static_cast<const uint16_t*>(call.args.input) + offset;
  const bool is_f32 = input_dtype_ == DType::f32;
  QParams q = call.tensor;
  if (quant_.per_row) {
    float mn, mx;
    if (is_f32)
      row_kernels_.min_max_f32(f32, k, &mn, &mx);
    else
      row_kernels_.min_max_bf16(bf16, k, &mn, &mx);
    q = kernels::row_qparams(mn, mx, quant_.symmetric, quant_.reduce_range);
  }
  if (q.scale != q.scale) {  // the epilogue makes NaN of the whole row
    std::memset(dst, 0, static_cast<size_t>(call.a_stride));
    return {q.scale, 0, 0};
  }
  const kernels::QRange range = kernels::dynamic_range(quant_.symmetric, quant_.reduce_range);
  const int32_t zp = q.zero_point + range.shift;
  const int32_t lo = range.lo + range.shift, hi = range.hi + range.shift;
  const float inverse = 1.f / q.scale;
  const int32_t sum =
      is_f32 ? row_kernels_.quantize_f32(f32, k, inverse, zp, lo, hi, dst, call.a_stride)
             : row_kernels_.quantize_bf16(bf16, k, inverse, zp, lo, hi, dst, call.a_stride);
  return {q.scale, zp, sum};
}

RowParams NativeLinear::prepare_static(const Call& call, int64_t row, uint8_t* dst) const {
  const int64_t k = weight_.k();
  const uint8_t* src =
      static_cast<const uint8_t*>(call.args.input) + row * call.args.input_stride;
  const int32_t sum =
      input_dtype_ == DType::qu8
          ? row_kernels_.copy_u8(src, k, dst, call.a_stride)
          : row_kernels_.shift_s8(reinterpret_cast<const int8_t*>(src), k, dst, call.a_stride);
  return {input_scale_, input_zero_point_, sum};
}

QuantizedRows NativeLinear::prepare_rows(const Call& call, const Scratch& scratch, int64_t r0,
                                         int64_t rows) const {
  if (call.in_place) {
    scratch.params[0] = {input_scale_, input_zero_point_, 0};
    const uint8_t* data = static_cast<const uint8_t*>(call.args.input);
    return {data + r0 * call.args.input_stride, call.args.input_stride, scratch.params, 0};
  }
  for (int64_t i = 0; i < rows; ++i) {
    uint8_t* dst = scratch.rows + i * call.a_stride;
    scratch.params[i] =
        dynamic_ ? prepare_dynamic(call, r0 + i, dst) : prepare_static(call, r0 + i, dst);
  }
  return {scratch.rows, call.a_stride, scratch.params, 1};
}

// Output of rows [row, row + rows) and panels [p0, p1) from their accumulators.
void NativeLinear::finish(const Call& call, const QuantizedRows& a, int64_t a_row, int64_t row,
                          int64_t rows, int64_t p0, int64_t p1, const int32_t* raw,
                          int64_t raw_stride) const {
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
  t.output = static_cast<uint8_t*>(call.args.output) +
             element * static_cast<int64_t>(size_of(output_dtype_));
  t.output_stride = n;
  if (call.args.other != nullptr)
    t.other = static_cast<const uint8_t*>(call.args.other) +
              element * static_cast<int64_t>(size_of(call.args.other_dtype));
  t.other_stride = n;
  epilogue_(call.epilogue, t);
}

// Bytes of later weights that one block may fetch: more would fill the queue of
// misses and hold up the block's own loads.
constexpr int64_t kMostFetched = 4096;

// Panels a GEMV computes between two calls of the epilogue: 8 KB of accumulators.
constexpr int64_t kGemvPanels = 32;

void NativeLinear::multiply_row(const Call& call, const Scratch& scratch, const QuantizedRows& a,
                                int64_t row, int64_t p0, int64_t p1) const {
  for (int64_t p = p0; p < p1; p += kGemvPanels) {
    const int64_t end = p + kGemvPanels < p1 ? p + kGemvPanels : p1;
    call.gemm.gemv({.a = a.data,
                    .b = weight_.panel(p),
                    .panel_bytes = weight_.panel_bytes(),
                    .quads = call.quads,
                    .panels = end - p,
                    .c = scratch.tile});
    finish(call, a, 0, row, 1, p, end, scratch.tile, 0);
  }
}

void NativeLinear::multiply_rows(const Call& call, const Scratch& scratch, const QuantizedRows& a,
                                 int64_t r0, int64_t rows, int64_t p0, int64_t p1) const {
  const int64_t tiles = (rows + call.tile_rows - 1) / call.tile_rows;
  for (int64_t p = p0; p < p1; p += call.tile_panels) {
    const int64_t end = p + call.tile_panels < p1 ? p + call.tile_panels : p1;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t r = t * call.tile_rows;
      const int64_t count = rows - r < call.tile_rows ? rows - r : call.tile_rows;
      for (int64_t i = p; i < end; ++i) {
        // Each row tile fetches its share of the panels that come after these.
        const int64_t next = i + call.tile_panels;
        const int64_t from = weight_.panel_bytes() * t / tiles;
        const int64_t to = weight_.panel_bytes() * (t + 1) / tiles;
        GemmBlock g;
        g.a = a.data + r * a.stride;
        g.a_stride = a.stride;
        g.c = scratch.tile + (i - p) * kPanelColumns;
        g.c_stride = call.tile_panels * kPanelColumns;
        g.rows = count;
        if (next < p1 && tiles > 1) {
          g.next = weight_.panel(next) + from;
          g.next_bytes = to - from < kMostFetched ? to - from : kMostFetched;
        }
        multiply_panel(call, g, r0 + r, i);
      }
      finish(call, a, r, r0 + r, count, p, end, scratch.tile, call.tile_panels * kPanelColumns);
    }
  }
}

// Runs the block over one panel, k block by k block. row: of the output.
void NativeLinear::multiply_panel(const Call& call, GemmBlock g, int64_t row,
                                  int64_t panel) const {
  const int64_t n = weight_.n();
  const int64_t n0 = panel * kPanelColumns;
  const int64_t columns = n - n0 < kPanelColumns ? n - n0 : kPanelColumns;
  const int64_t element_bytes = static_cast<int64_t>(size_of(output_dtype_));
  const uint8_t* a = g.a;
  int64_t q = 0;
  do {
    const int64_t left = call.quads - q;
    const bool last = left <= call.block_quads;
    g.a = a + 4 * q;
    g.b = weight_.panel(panel) + q * kernels::kQuadBytes;
    g.quads = last ? left : call.block_quads;
    g.accumulate = q != 0;
    if (last) {
      g.out = static_cast<const uint8_t*>(call.args.output) + (row * n + n0) * element_bytes;
      g.out_stride = n * element_bytes;
      g.out_bytes = columns * element_bytes;
    }
    call.gemm.block(g);
    g.next_bytes = 0;  // the first k block has fetched it
    q += call.block_quads;
  } while (q < call.quads);
}

void NativeLinear::run_task(const Call& call, const Scratch& scratch, int64_t r0, int64_t r1,
                            int64_t p0, int64_t p1) const {
  for (int64_t r = r0; r < r1; r += call.block_rows) {
    const int64_t rows = r1 - r < call.block_rows ? r1 - r : call.block_rows;
    const QuantizedRows a = prepare_rows(call, scratch, r, rows);
    if (rows == 1 && call.gemm.gemv != nullptr)
      multiply_row(call, scratch, a, r, p0, p1);
    else
      multiply_rows(call, scratch, a, r, rows, p0, p1);
  }
}

void NativeLinear::choose_blocks(Call& call, int64_t task_rows) const {
  const GemmKernels& gemm = call.gemm;
  // Few rows make one tile; more of them tiles of row_block.
  call.tile_rows = task_rows <= 2 * gemm.row_block ? task_rows : gemm.row_block;
  // Panels: their weights in a quarter of L2, their accumulators in half of L1.
  call.tile_panels = gemm.tile_bytes / (kPanelColumns * 4) / round_up(call.tile_rows, gemm.row_multiple);
  const int64_t in_l2 = l2_bytes() / 4 / (weight_.panel_bytes() == 0 ? 1 : weight_.panel_bytes());
  if (call.tile_panels > in_l2) call.tile_panels = in_l2;
  if (call.tile_panels > weight_.panels()) call.tile_panels = weight_.panels();
  if (call.tile_panels < 1) call.tile_panels = 1;
  // Rows: 5/8 of L2, and shared out evenly, as each set reads all weights again.
  const int64_t rows = round_up(task_rows, gemm.row_multiple);
  int64_t most = l2_bytes() * 5 / 8 / call.a_stride;
  if (most < call.tile_rows) most = call.tile_rows;
  const int64_t sets = (rows + most - 1) / most;
  call.block_rows = round_up((rows + sets - 1) / sets, call.tile_rows);
  if (call.block_rows > rows) call.block_rows = rows;
}

void NativeLinear::run(const LinearArgs& args) const {
  if (args.m == 0 || weight_.n() == 0) return;
  Call call = prepare_call(args);
  const GemmKernels& gemm = call.gemm;
  const int64_t panels = weight_.panels();
  const native::Plan plan =
      native::make_plan(args.m, panels, weight_.k_pad(), gemm.row_unit, num_threads());

  choose_blocks(call, plan.rows_per_task);
  const int64_t row_bytes = call.in_place ? 0 : call.block_rows * call.a_stride;
  const int64_t param_bytes =
      round_up(call.block_rows * static_cast<int64_t>(sizeof(RowParams)), 64);
  const int64_t tile = round_up(call.tile_rows, gemm.row_multiple) * call.tile_panels;
  const int64_t tile_bytes = (tile > kGemvPanels ? tile : kGemvPanels) * kPanelColumns * 4;

  const auto body = [&](int64_t begin, int64_t end) {
    native::ScratchLease lease(row_bytes + param_bytes + tile_bytes);
    Scratch scratch;
    scratch.tile = reinterpret_cast<int32_t*>(lease.data());
    scratch.params = reinterpret_cast<RowParams*>(lease.data() + tile_bytes);
    scratch.rows = lease.data() + tile_bytes + param_bytes;
    if (gemm.begin != nullptr) gemm.begin();
    // Tasks of one row range that fall to the same thread run as one.
    for (int64_t task = begin; task < end;) {
      const int64_t i = task / plan.column_tasks;
      const int64_t j0 = task % plan.column_tasks;
      const int64_t j1 = j0 + end - task < plan.column_tasks ? j0 + end - task : plan.column_tasks;
      const int64_t r0 = i * plan.rows_per_task;
      const int64_t r1 = r0 + plan.rows_per_task < args.m ? r0 + plan.rows_per_task : args.m;
      run_task(call, scratch, r0, r1, panels * j0 / plan.column_tasks,
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
  bool asymmetric = false;
  if (p.weight_zero_point != nullptr)
    for (int64_t i = 0; i < p.weight_scale_size; ++i) asymmetric |= p.weight_zero_point[i] != 0;
  const int64_t k_bound = asymmetric ? kMaxExactKAsymmetricWeight : kMaxExactK;
  if (p.k > k_bound) return refuse("k ", p.k, "; needs k <= ", k_bound).reason;
  if (p.weight_scale_size != 1 && p.weight_scale_size != p.n)
    return refuse("weight_scale_size ", p.weight_scale_size, "; needs 1 or ", p.n).reason;
  const bool float_input = p.input_dtype == DType::f32 || p.input_dtype == DType::bf16;
  if (p.dynamic != float_input || (!p.dynamic && !is_quantized(p.input_dtype)))
    return refuse("input dtype ", name_of(p.input_dtype), "; needs ",
                  p.dynamic ? "f32 or bf16" : "qu8 or qs8").reason;
  if (p.output_dtype == DType::s32 || (p.dynamic && is_quantized(p.output_dtype)))
    return refuse("output dtype ", name_of(p.output_dtype), "; needs ",
                  p.dynamic ? "f32 or bf16" : "qu8, qs8, f32 or bf16").reason;
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
