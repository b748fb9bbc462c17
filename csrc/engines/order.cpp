// Every candidate table on one page. Best first; `reference` is last, always built,
// and accepts everything that the checks let through. Which engine leads a class is
// measured: see benchmarks/ops/linear.py and docs/design.md.
#include "engines/order.h"

#include <algorithm>

#include "core/cpu_features.h"
#include "engines/onednn/onednn.h"
#include "engines/xnnpack/xnnpack.h"

namespace tae {
namespace {

// An engine may have several rows: a class that it leads, and a later place for the
// rest. It is asked once, at the first row that applies.
struct LinearRow {
  Engine engine;
  bool (*applies)(const LinearProblem& p);
  Result<LinearImplPtr> (*make)(const LinearProblem& p);
};

bool always(const LinearProblem&) { return true; }

// Classes by measurement: engines forced in turn at each TORCH_AO_EXT_MAX_ISA,
// interleaved, geometric mean over M = 1, 16, 128, 512. Only what is known at packing
// may decide: ISA, K, N; M is not known.

// XNNPACK against native: AVX2 1.09-1.38x static and 1.03-1.16x dynamic, SSE4.1 4-5x.
bool xnnpack_leads(const LinearProblem&) { return best_isa() == Isa::avx2 || best_isa() == Isa::portable; }

// oneDNN against native, 2 threads. 256-bit VNNI: 0.95-0.98x at 3072 x 768, 1.03-1.05x
// at 4096 x 4096, 1.04-1.06x above. AVX512-VNNI: 0.91-0.98x. AMX: 0.83-0.99x.
bool onednn_leads(const LinearProblem& p) { return best_isa() == Isa::avx_vnni && p.k * p.n >= 4096 * 4096; }

constexpr LinearRow kLinear[] = {
    {Engine::onednn, onednn_leads, make_linear_onednn}, {Engine::xnnpack, xnnpack_leads, make_linear_xnnpack},
    {Engine::native, always, make_linear_native},       {Engine::onednn, always, make_linear_onednn},
    {Engine::xnnpack, always, make_linear_xnnpack},     {Engine::reference, always, make_linear_reference},
};

struct ConvRow {
  Engine engine;
  bool (*applies)(const ConvProblem& p);
  Result<ConvImplPtr> (*make)(const ConvProblem& p);
};

bool always(const ConvProblem&) { return true; }

// oneDNN against native, 2 threads, AVX512-VNNI with 2 dot products a cycle, the rows of
// benchmarks/shapes/conv.csv: 3x3 and 1x1 1.02-1.25x, 1x1 with few columns or channels
// 2-3.8x, stems 1.2-2.5x, groups 2.2-2.6x, transposed 3-7x, dilated 1.2-1.9x. Native leads
// - heavy weights, which networks have where images are small: 3x3 512 -> 512 1.13x, 1x1
//   2048 -> 512 and 320 -> 1280 on 49 pixels
// - kernels that are one tap wide on a pixel of less than 4 bytes: 512x1 33x
// - 1x1 from 64 channels to 64 or more, and to at most 32, whose bytes leave from registers:
//   1.0-1.06x and 1.13-1.15x, with a sum 1.15-1.4x
// - 1x1 with a stride of 2 from 64 channels to 64 or more: 1.25-1.5x
// - dilations of 6 and more, whose taps outside it leaves out: 256 and 512 channels at 28x28 and 65x65
//   1.15-1.7x; smaller ones 0.65-1.0x
// - depthwise: 1.2-2.5x; without VNNI of 512 bits from 384 channels on only, 1.05-1.4x,
//   fewer 0.6-0.9x
// - on 256-bit VNNI dense shapes that fill the panels: 3x3 1.03x, 1x1 1.01-1.09x.
bool onednn_leads_conv(const ConvProblem& p) {
  const ConvGeometry& g = p.geometry;
  if (g.groups > 1 && g.group_channels() == 1 && !g.transposed)
    return best_isa() < Isa::avx512_vnni && g.groups < 384;
  if (g.in_channels * g.kernel[2] < 4) return false;
  const bool dense = g.groups == 1 && !g.transposed;
  const bool one_tap = g.taps() == 1;
  const bool pixels = one_tap && g.stride[0] == 1 && g.stride[1] == 1 && g.stride[2] == 1;
  if (best_isa() >= Isa::avx512_vnni && dense && pixels && p.rows.k >= 64 && p.rows.n >= 64) return false;
  if (best_isa() == Isa::avx512_vnni && dense) {
    const bool padded = g.padding[0] + g.padding[1] + g.padding[2] != 0;
    if (one_tap && !padded && p.rows.k >= 64 && p.rows.n >= 64) return false;
    const bool far = g.kernel[1] > 1 && g.kernel[2] > 1 && std::min(g.dilation[1], g.dilation[2]) >= 6;
    if (far && g.in_channels >= 256 && g.in_channels % 4 == 0) return false;
  }
  const bool bytes = is_quantized(p.rows.output_dtype) && !p.rows.qparams_in_call;
  if (best_isa() == Isa::avx512_vnni && dense && pixels && bytes && p.rows.k >= 16 && p.rows.n <= 32)
    return false;
  if (best_isa() == Isa::avx_vnni && dense && p.rows.k > 64 && p.rows.n >= 64) return false;
  return p.rows.k * p.rows.n / g.groups <= (g.taps() == 1 ? int64_t{1} << 18 : int64_t{1} << 20);
}

constexpr ConvRow kConv[] = {
    {Engine::onednn, onednn_leads_conv, make_conv_onednn},
    {Engine::native, always, make_conv_native},
    {Engine::onednn, always, make_conv_onednn},
    {Engine::xnnpack, always, make_conv_xnnpack},
    {Engine::reference, always, make_conv_reference},
};

// Qparams of the input that come with each call: not for XNNPACK.
constexpr ConvRow kConvOfCall[] = {
    {Engine::onednn, onednn_leads_conv, make_conv_onednn},
    {Engine::native, always, make_conv_native},
    {Engine::onednn, always, make_conv_onednn},
    {Engine::reference, always, make_conv_reference},
};

// Families without classes.
template <typename Problem, typename ImplPtr>
struct EngineRow {
  Engine engine;
  Result<ImplPtr> (*make)(const Problem& p);
};

constexpr EngineRow<WeightOnlyProblem, WeightOnlyImplPtr> kWeightOnly[] = {
    {Engine::native, make_weight_only_native},
    {Engine::reference, make_weight_only_reference},
};

constexpr EngineRow<MatmulProblem, MatmulRun> kMatmul[] = {
    {Engine::native, find_matmul_native},
    {Engine::reference, find_matmul_reference},
};

constexpr EngineRow<AttentionProblem, AttentionRun> kAttention[] = {
    {Engine::native, find_attention_native},
    {Engine::reference, find_attention_reference},
};

// XNNPACK adds the bias to the accumulator and multiplies once, so a result near a
// rounding boundary may differ by one step from the rule in engines/linear.h.
bool follows_rule(Engine engine) { return engine != Engine::xnnpack; }

// `lacks`: why a forced engine that has no row refuses.
template <typename Problem, typename ImplPtr, size_t kRows>
SelectionOf<ImplPtr> select_from(const EngineRow<Problem, ImplPtr> (&rows)[kRows], const Problem& problem,
                                 Engine forced, const char* lacks) {
  SelectionOf<ImplPtr> selection;
  for (const EngineRow<Problem, ImplPtr>& row : rows) {
    if (forced != Engine::automatic && forced != row.engine) continue;
    Result<ImplPtr> made = row.make(problem);
    if (made) {
      selection.impl = std::move(made.value());
      return selection;
    }
    selection.refused.emplace_back(name_of(row.engine), made.reason());
  }
  if (selection.refused.empty()) selection.refused.emplace_back(name_of(forced), lacks);
  return selection;
}

template <typename Row, size_t kRows, typename Problem, typename ImplPtr>
void select_by_class(const Row (&rows)[kRows], const Problem& problem, Engine forced, bool deterministic,
                     SelectionOf<ImplPtr>* selection) {
  bool asked[kNumEngines] = {};
  for (const Row& row : rows) {
    bool& done = asked[static_cast<int>(row.engine)];
    if (done || (forced != Engine::automatic && forced != row.engine)) continue;
    // A class table orders engines, it does not forbid one that is asked for by name.
    if (forced == Engine::automatic && !row.applies(problem)) continue;
    done = true;
    if (deterministic && !follows_rule(row.engine)) {
      selection->refused.emplace_back(name_of(row.engine), "may round differently; deterministic mode is on");
      continue;
    }
    Result<ImplPtr> made = row.make(problem);
    if (made) {
      selection->impl = std::move(made.value());
      return;
    }
    selection->refused.emplace_back(name_of(row.engine), made.reason());
  }
}

}  // namespace

Selection select_linear(const LinearProblem& problem, Engine forced, bool deterministic) {
  Selection selection;
  // A sparse weight is a dense one with zeros to every engine but one.
  if (problem.sparse != nullptr && (forced == Engine::automatic || forced == Engine::native)) {
    Result<LinearImplPtr> made = make_sparse_linear_native(problem);
    if (made) {
      selection.impl = std::move(made.value());
      return selection;
    }
    selection.refused.emplace_back("native sparse", made.reason());
  }
  select_by_class(kLinear, problem, forced, deterministic, &selection);
  return selection;
}

ConvSelection select_conv(const ConvProblem& problem, Engine forced, bool deterministic) {
  ConvSelection selection;
  if (problem.rows.qparams_in_call)
    select_by_class(kConvOfCall, problem, forced, deterministic, &selection);
  else
    select_by_class(kConv, problem, forced, deterministic, &selection);
  if (selection.impl == nullptr && selection.refused.empty())
    selection.refused.emplace_back(name_of(forced), "has no convolutions of float inputs");
  return selection;
}

WeightOnlySelection select_weight_only(const WeightOnlyProblem& problem, Engine forced) {
  return select_from(kWeightOnly, problem, forced, "has no linear layers with float inputs");
}

MatmulSelection select_matmul(const MatmulProblem& problem, Engine forced) {
  return select_from(kMatmul, problem, forced, "has no products of two activations");
}

AttentionSelection select_attention(const AttentionProblem& problem, Engine forced) {
  return select_from(kAttention, problem, forced, "has no attention of 8-bit tensors");
}

std::string refusal_lines(const std::vector<std::pair<std::string, std::string>>& refused) {
  std::string lines;
  for (const auto& [engine, reason] : refused)
    lines += (lines.empty() ? "  " : "\n  ") + engine + ": " + reason;
  return lines;
}

std::vector<EngineInfo> engine_infos() {
  return {{"native", name_of(best_isa()), ""},
          {"onednn", onednn::onednn_version(), onednn::init_error()},
          {"xnnpack", xnnpack::xnnpack_version(), xnnpack::init_error()},
          {"reference", "scalar", ""}};
}

}  // namespace tae
