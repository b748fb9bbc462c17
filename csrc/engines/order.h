// Which engine runs a problem: the candidate tables of all families are in order.cpp.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/env.h"
#include "engines/attention.h"
#include "engines/conv.h"
#include "engines/linear.h"
#include "engines/matmul.h"
#include "engines/weight_only.h"

namespace tae {

template <typename ImplPtr>
struct SelectionOf {
  ImplPtr impl{};  // null when every candidate refused
  // Candidates before the chosen one, each with its reason.
  std::vector<std::pair<std::string, std::string>> refused;
};
using Selection = SelectionOf<LinearImplPtr>;
using ConvSelection = SelectionOf<ConvImplPtr>;
using WeightOnlySelection = SelectionOf<WeightOnlyImplPtr>;
using MatmulSelection = SelectionOf<MatmulRun>;  // impl: a function, chosen for each call
using AttentionSelection = SelectionOf<AttentionRun>;

// Asks the candidates of the linear family in order. A forced engine is the only
// candidate; deterministic mode leaves out engines that round in another place.
Selection select_linear(const LinearProblem& problem, Engine forced, bool deterministic);

// The same for the convolution family.
ConvSelection select_conv(const ConvProblem& problem, Engine forced, bool deterministic);

// The same for linear layers whose weight alone is quantized.
WeightOnlySelection select_weight_only(const WeightOnlyProblem& problem, Engine forced);

// The same for products of two activations.
MatmulSelection select_matmul(const MatmulProblem& problem, Engine forced);

// The same for attention of 8-bit tensors.
AttentionSelection select_attention(const AttentionProblem& problem, Engine forced);

// "  onednn: <reason>", one line each.
std::string refusal_lines(const std::vector<std::pair<std::string, std::string>>& refused);

// What `info` shows of an engine.
struct EngineInfo {
  const char* name;
  std::string version;
  std::string problem;  // empty when usable
};
std::vector<EngineInfo> engine_infos();

}  // namespace tae
