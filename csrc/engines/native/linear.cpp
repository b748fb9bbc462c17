// linear on our own kernels, static and dynamic: what is packed, and a call's cut into tasks.
#include "engines/native/linear.h"

#include <algorithm>

#include "core/parallel.h"
#include "core/round_up.h"
#include "engines/native/linear_task.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace native {

using kernels::kPanelColumns;

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

void NativeLinear::run(const LinearArgs& args) const {
  if (args.m == 0 || weight_.n() == 0) return;
  const GemmKernels& gemm = kernels_for(args.m);
  const int64_t panels = weight_.panels();
  const Plan plan =
      make_plan(args.m, panels, weight_.k_pad(), gemm.row_unit, gemm.row_multiple, num_threads());
  const bool bytes = gemm.finishes && bytes_.possible(args);
  const Blocks blocks = choose_blocks(gemm, weight_, plan.rows_per_task, row_bytes(), bytes);
  const Call call{args,
                  gemm,
                  input_.begin(args),
                  output_.params(weight_, args),
                  blocks,
                  read_in_place(gemm, args),
                  finishes_in_kernel(gemm),
                  bytes};

  // The kernel may touch rows behind the last, up to a multiple of row_multiple. Bytes of one k block
  // leave no sums.
  const bool sums = !bytes || blocks.k_quads < blocks.quads;
  const int64_t tile_panels =
      std::max(sums ? round_up(blocks.tile_rows, gemm.row_multiple) * blocks.tile_panels : 0, kGemvPanels);
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

}  // namespace native

namespace {

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
  return LinearImplPtr(std::make_shared<native::NativeLinear>(p, isa));
}

Result<LinearImplPtr> make_linear_native(const LinearProblem& p) {
  return make_linear_native_at(p, best_isa());
}

}  // namespace tae
