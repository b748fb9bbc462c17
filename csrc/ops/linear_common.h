// What linear, linear_dynamic, their fused names and the packing ops share: checks of
// the weight side, the engine state, one call.
#pragma once

#include <string_view>

#include "core/checks.h"
#include "core/weight_state.h"
#include "engines/linear.h"
#include "ops/batch_norm.h"
#include "ops/post_op_tensors.h"
#include "ops/sparse_weight.h"

namespace tae {

// The arguments that are baked into a packing. References live as long as the call.
struct LinearBaked {
  const char* op;                                      // in messages
  const at::Tensor& weight;                            // [N, K] int8
  const at::Tensor& weight_scale;                      // [1] or [N] float32
  const std::optional<at::Tensor>& weight_zero_point;  // [1] or [N] int32, int64
  const std::optional<at::Tensor>& bias;               // [N] float32
  bool dynamic = false;
  DynamicQuant dynamic_quant = {};
  DType input_dtype = DType::qu8;
  DType output_dtype = DType::qu8;
  float input_scale = 1.f;  // static only, as the next three
  int32_t input_zero_point = 0;
  float output_scale = 1.f;
  int32_t output_zero_point = 0;
  std::string_view post_ops = {};
  at::ArrayRef<double> post_op_args = {};
  const SparseIndex* sparse = nullptr;             // then weight is [blocks, 1, 4] or [blocks, 8, 1]
  const BatchNorm* bn = nullptr;                   // of the output columns
  const PostOpTensors* post_op_tensors = nullptr;  // null: no such arguments
};

// The arguments that every static product has, in schema order.
struct StaticArgs {
  const at::Tensor& input;
  double input_scale;
  int64_t input_zero_point;
  const at::Tensor& weight;
  const at::Tensor& weight_scale;
  const std::optional<at::Tensor>& weight_zero_point;
  const std::optional<at::Tensor>& bias;
  double output_scale;
  int64_t output_zero_point;
  const std::optional<at::ScalarType>& output_dtype;
};
// Checks dtypes and qparams of input and output.
LinearBaked bake_arguments(const char* op, const StaticArgs& args, std::string_view post_ops = {},
                           at::ArrayRef<double> post_op_args = {});

// Sets input_scale .. output_zero_point of a static problem after checking them.
void bake_static_qparams(LinearBaked* baked, double input_scale, int64_t input_zero_point,
                         double output_scale, int64_t output_zero_point);

// Dtypes, ranks and lengths of the weight side; not the values. Returns nothing taken.
void check_linear_weights(const LinearBaked& baked);

// Scales, zero points and bias of n output columns; `what` says where n comes from.
void check_columns(const LinearBaked& baked, int64_t n, const char* what);

// What check_columns checked, into the key of the packed state.
void add_columns(StateQuery* query, const LinearBaked& baked);

// The values behind a problem's pointers.
struct ProblemStorage {
  at::Tensor weight;
  SparseWeight sparse;
  std::vector<float> scale;
  std::vector<int32_t> zero_point;
  std::vector<float> bias;
  PostOpValues post_op_values;
};

// Checks every value that a packing bakes in; the shapes are checked by the caller.
// The weight, of n * k elements, is that of `baked` made contiguous.
LinearProblem make_problem(const LinearBaked& baked, int64_t n, int64_t k, ProblemStorage* storage);

// One line of the dispatch log.
void log_packing(const LinearBaked& baked, const PackedState& state);

// The packed state, made on first use.
PackedStatePtr packed_linear(const LinearBaked& baked);

// [*, K] -> [*, N]. `input` has a checked dtype; everything else is checked here.
at::Tensor run_linear(const LinearBaked& baked, const at::Tensor& input, const LinearOther& other);

}  // namespace tae
