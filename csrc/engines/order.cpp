// Every candidate table on one page. Best first; `reference` is last, always built,
// and accepts everything that the checks let through. Which engine leads a class is
// measured: see benchmarks/ops/linear.py and docs/design.md.
#include "engines/order.h"

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

// Families without classes.
template <typename Problem, typename ImplPtr>
struct EngineRow {
  Engine engine;
  Result<ImplPtr> (*make)(const Problem& p);
};

constexpr EngineRow<ConvProblem, ConvImplPtr> kConv[] = {
    {Engine::native, make_conv_native},
    {Engine::reference, make_conv_reference},
};

// Qparams of the input that come with each call.
constexpr EngineRow<ConvProblem, ConvImplPtr> kConvOfCall[] = {
    {Engine::native, make_conv_native},
    {Engine::reference, make_conv_reference},
};

constexpr EngineRow<WeightOnlyProblem, WeightOnlyImplPtr> kWeightOnly[] = {
    {Engine::native, make_weight_only_native},
    {Engine::reference, make_weight_only_reference},
};

constexpr EngineRow<MatmulProblem, MatmulRun> kMatmul[] = {
    {Engine::native, find_matmul_native},
    {Engine::reference, find_matmul_reference},
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
  bool asked[kNumEngines] = {};
  for (const LinearRow& row : kLinear) {
    bool& done = asked[static_cast<int>(row.engine)];
    if (done || (forced != Engine::automatic && forced != row.engine)) continue;
    // A class table orders engines, it does not forbid one that is asked for by name.
    if (forced == Engine::automatic && !row.applies(problem)) continue;
    done = true;
    if (deterministic && !follows_rule(row.engine)) {
      selection.refused.emplace_back(name_of(row.engine), "may round differently; deterministic mode is on");
      continue;
    }
    Result<LinearImplPtr> made = row.make(problem);
    if (made) {
      selection.impl = std::move(made.value());
      return selection;
    }
    selection.refused.emplace_back(name_of(row.engine), made.reason());
  }
  return selection;
}

ConvSelection select_conv(const ConvProblem& problem, Engine forced) {
  if (problem.rows.qparams_in_call)
    return select_from(kConvOfCall, problem, forced, "has no convolutions of float inputs");
  return select_from(kConv, problem, forced, "has no convolutions");
}

WeightOnlySelection select_weight_only(const WeightOnlyProblem& problem, Engine forced) {
  return select_from(kWeightOnly, problem, forced, "has no linear layers with float inputs");
}

MatmulSelection select_matmul(const MatmulProblem& problem, Engine forced) {
  return select_from(kMatmul, problem, forced, "has no products of two activations");
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
