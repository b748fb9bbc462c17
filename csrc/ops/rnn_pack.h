// The engine state of one direction of one layer.
#pragma once

#include "ops/rnn_common.h"

namespace tae {

// The tensors of one direction of one layer.
struct RnnCell {
  const RnnWeights& w;
  int64_t index;

  const at::Tensor& weight(int64_t i) const { return w.weights[index * w.weights_per_cell() + i]; }
  const at::Tensor& scale(int64_t i) const { return w.scales[index * w.weights_per_cell() + i]; }
  bool biased() const { return !w.biases.empty(); }
  bool first_layer() const { return index < w.directions(); }
  const at::Tensor& bias(int64_t i) const { return w.biases[2 * index + i]; }

  Arg weight_arg(int64_t i) const { return {w.op, w.names.weights[i]}; }
  Arg scale_arg(int64_t i) const { return {w.op, w.names.scales[i]}; }
  Arg bias_arg(int64_t i) const { return {w.op, w.names.biases[i]}; }
};

// On the first weight of a checked cell, packed where it is not; the values are checked then.
PackedStatePtr packed(const RnnCell& cell, DType input_dtype);

}  // namespace tae
