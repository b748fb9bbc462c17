// linear_weight_only on our own kernels: what is packed, a call's cut into tasks, their memory.
#include "engines/weight_only.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/parallel.h"
#include "engines/input_rows.h"
#include "engines/native/plan.h"
#include "engines/native/weight_only_task.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace native {
namespace {

// Sums of [n][k] int8 over the groups of k: [n padded to panels][groups], panel by panel
// [groups][64].
std::vector<int32_t> group_sums(const WeightOnlyProblem& p) {
  const int64_t panels = ceil_div(p.n, kPanelColumns), groups = p.groups();
  std::vector<int32_t> sums(static_cast<size_t>(panels * groups * kPanelColumns));
  parallel_for(p.n, 1 + (int64_t{1} << 16) / (p.k + 1), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int8_t* w = static_cast<const int8_t*>(p.weight) + n * p.k;
      for (int64_t g = 0; g < groups; ++g) {
        int32_t sum = 0;
        for (int64_t k = g * p.input_group(); k < std::min(p.k, (g + 1) * p.input_group()); ++k) sum += w[k];
        const int64_t panel = n / kPanelColumns;
        sums[static_cast<size_t>((panel * groups + g) * kPanelColumns + n % kPanelColumns)] = sum;
      }
    }
  });
  return sums;
}

}  // namespace

NativeWeightOnly::NativeWeightOnly(const WeightOnlyProblem& p, Isa isa)
    : k_(p.k),
      n_(p.n),
      group_(p.input_group()),
      groups_(p.groups()),
      bits_(p.bits),
      input_bits_(p.input_bits),
      two_planes_below_(p.two_planes_below()),
      dtype_(p.dtype),
      isa_(isa),
      kernels_(kernels::weight_only_kernels(isa)),
      gemm_(kernels::gemm_kernels(std::min(isa, Isa::avx512_vnni))) {
  if (p.bits == 8) {
    weight8_ = kernels::PackedWeight(static_cast<const int8_t*>(p.weight), p.n, p.k, own_rows() ? 0x80 : 0);
    weight_scale_.assign(p.weight_scale, p.weight_scale + p.n);
    if (!own_rows()) group_sums_ = group_sums(p);
  } else {
    weight4_ = native::PackedWeight4(p);
  }
  if (p.bias != nullptr) bias_.assign(p.bias, p.bias + p.n);
}

std::string NativeWeightOnly::description() const {
  std::string text = "native weight-only " + std::to_string(bits_) + " bit";
  if (bits_ == 4) text += " in groups of " + std::to_string(group_);
  text += ", rows of " + std::to_string(input_bits_) + " bits in groups of " + std::to_string(group_);
  return text + ", " + name_of(isa_) + " " + (own_rows() ? kernels_.name : gemm_.name);
}

size_t NativeWeightOnly::packed_bytes() const {
  return weight8_.bytes() + weight4_.bytes() + 4 * (weight_scale_.size() + group_sums_.size() + bias_.size());
}

NativeWeightOnly::Layout NativeWeightOnly::layout(const WeightOnlyArgs& args, int64_t set_rows,
                                                  int64_t task_panels) const {
  Layout l;
  l.set_rows = set_rows;
  l.tile_rows = std::min(set_rows, kWeightOnlyRows);
  const int64_t blocks = ceil_div(set_rows, l.tile_rows) * groups_;
  for (int64_t& at : l.scales) at = l.take(4 * blocks * l.tile_rows);
  l.low_row = l.take(blocks * l.tile_rows);
  l.low_count = l.take(4 * blocks);
  for (int64_t& at : l.planes) at = l.take(blocks * l.tile_rows * group_);
  l.row_scales = l.take(4 * set_rows);
  const int64_t v_rows = by_row(args) ? task_panels : own_rows() ? l.tile_rows : set_rows;
  l.v = l.take(4 * kPanelColumns * v_rows);
  if (!own_rows()) {
    l.c = l.take(4 * kPanelColumns * kWeightOnlyRows);
    l.ones_c = l.take(4 * kPanelColumns);
    l.unpacked = l.take(kMostGroup * kPanelColumns);
    l.ones = l.take(kMostGroup);
  }
  return l;
}

NativeWeightOnly::Scratch NativeWeightOnly::scratch(const Layout& l, uint8_t* base) {
  const auto floats = [base](int64_t at) { return reinterpret_cast<float*>(base + at); };
  const auto ints = [base](int64_t at) { return reinterpret_cast<int32_t*>(base + at); };
  Scratch s;
  s.set_rows = l.set_rows;
  s.tile_rows = l.tile_rows;
  s.high_scales = {floats(l.scales[0]), ints(l.scales[1])};
  s.low_scales = {floats(l.scales[2]), ints(l.scales[3])};
  s.low_row = base + l.low_row;
  s.low_count = ints(l.low_count);
  s.high = base + l.planes[0];
  s.low = base + l.planes[1];
  s.row_scales = floats(l.row_scales);
  s.v = floats(l.v);
  s.c = ints(l.c);
  s.ones_c = ints(l.ones_c);
  s.unpacked = reinterpret_cast<int8_t*>(base + l.unpacked);
  s.ones = base + l.ones;
  return s;
}

void NativeWeightOnly::run(const WeightOnlyArgs& args) const {
  if (args.m == 0 || n_ == 0) return;
  const int64_t all_panels = panels(), planes = input_bits_ / 8;
  const Plan plan = make_plan(args.m, all_panels, std::max<int64_t>(1, planes * groups_ * group_),
                              gemm_.row_unit, gemm_.row_multiple, num_threads());
  // Rows whose planes half of L2 holds, shared out evenly: each set reads all weights again.
  const int64_t most_rows =
      std::max<int64_t>(16, l2_bytes() * 9 / 16 / std::max<int64_t>(1, planes * groups_ * group_));
  const int64_t task_rows = std::min(plan.rows_per_task, args.m), sets = ceil_div(task_rows, most_rows);
  const Layout l = layout(args, ceil_div(task_rows, sets), ceil_div(all_panels, plan.column_tasks));
  const auto body = [&](int64_t begin, int64_t end) {
    const ScratchMemory memory(static_cast<size_t>(l.bytes));
    const Scratch s = scratch(l, memory.data());
    if (!own_rows()) std::memset(s.ones, 1, kMostGroup);
    const kernels::DefaultFloatEnv env;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t i = task / plan.column_tasks, j = task % plan.column_tasks;
      const int64_t r0 = i * plan.rows_per_task;
      run_task(args, s, r0, std::min(r0 + plan.rows_per_task, args.m), all_panels * j / plan.column_tasks,
               all_panels * (j + 1) / plan.column_tasks);
    }
  };
  if (plan.tasks() == 1)
    body(0, 1);
  else
    parallel_for(plan.tasks(), 1, body);
}

}  // namespace native

Result<WeightOnlyImplPtr> make_weight_only_native(const WeightOnlyProblem& p) {
  return WeightOnlyImplPtr(std::make_shared<native::NativeWeightOnly>(p, best_isa()));
}

}  // namespace tae
