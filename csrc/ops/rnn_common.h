// What the recurrent ops share: checks, the engine state of each direction of each layer
// (on its first weight), and the run over layers.
#pragma once

#include "core/checks.h"
#include "core/weight_state.h"
#include "engines/rnn.h"

namespace tae {

// Names of the arguments in messages. Lists have one name for all their tensors; a cell, whose
// tensors are arguments of their own, has one for each.
struct RnnNames {
  const char* weights[3] = {"weights", "weights", "weights"};
  const char* scales[3] = {"weight_scales", "weight_scales", "weight_scales"};
  const char* biases[2] = {"biases", "biases"};
  const char* h = "h0";
  const char* c = "c0";
  const char* rows = "weights[0].size(0)";
  const char* columns = "weights[0].size(1)";
};

// How x and h are quantized; engines/rnn.h.
struct RnnRule {
  bool per_row = true;
  bool reduce_range = false;
};

// The weight side as it comes through a schema. For each layer and direction, in torch's
// order: weights W_ih, W_hh (and W_hr), as many scales, biases b_ih and b_hh or none.
struct RnnWeights {
  const char* op;
  RnnKind kind;
  at::TensorList weights;
  at::TensorList scales;
  at::TensorList biases;
  int64_t num_layers = 1;
  bool bidirectional = false;
  RnnRule rule = {};
  RnnNames names = {};
  bool one_step = false;  // a cell: input and states are [N, ...]

  int64_t directions() const { return bidirectional ? 2 : 1; }
  int64_t cells() const { return num_layers * directions(); }
  // 2, or 3 with projections; after check_rnn_weights.
  int64_t weights_per_cell() const { return static_cast<int64_t>(weights.size()) / cells(); }
  bool projected() const { return weights_per_cell() == 3; }
  int64_t hidden() const { return weights[0].size(0) / gates_of(kind); }
  int64_t output() const { return weights[1].size(1); }
};

// Counts, dtypes and sizes; not the values.
void check_rnn_weights(const RnnWeights& w);

// Packs every cell for inputs of this dtype.
void prepack_rnn(const RnnWeights& w, at::ScalarType input_dtype);

struct RnnResult {
  at::Tensor y, h, c;
};

// input [T, N, K], or [rows, K] with batch_sizes; h0, c0 [cells, N, ...]. Everything is
// checked here.
RnnResult run_rnn(const RnnWeights& w, const at::Tensor& input, const std::optional<at::Tensor>& batch_sizes,
                  const std::optional<at::Tensor>& h0, const std::optional<at::Tensor>& c0);

RnnKind rnn_kind_of(const char* op, std::string_view nonlinearity);

}  // namespace tae
