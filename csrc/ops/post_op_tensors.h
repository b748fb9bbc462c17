// The tensors that post-ops read beside the value they change: checks, and what a packing keeps of them.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "core/checks.h"
#include "core/state_key.h"
#include "engines/linear.h"

namespace tae {

// Those with a number for each output column.
struct PostOpTensors {
  const std::optional<at::Tensor>& slope;          // of prelu, [1] or [N] float32
  const std::optional<at::Tensor>& affine_weight;  // of affine, [N] float32, as the next
  const std::optional<at::Tensor>& affine_bias;
};

// Dtypes and sizes for n output columns; `what` says where n comes from. Null tensors: the op has no such
// arguments.
void check_post_op_tensors(const char* op, std::string_view post_ops, const PostOpTensors* tensors, int64_t n,
                           const char* what);

// What check_post_op_tensors checked, into the key of the packed state.
void add_post_op_tensors(StateQuery* query, std::string_view post_ops, const PostOpTensors* tensors);

// The values behind a problem's pointers.
struct PostOpValues {
  std::vector<float> slope, affine_weight, affine_bias;
};

// The same into a problem that has its post-ops; every value is checked.
void set_post_op_tensors(const char* op, std::string_view post_ops, const PostOpTensors* tensors,
                         PostOpValues* values, LinearProblem* problem);

// `other`, the operand of the post-op 'add'.
struct LinearOther {
  const std::optional<at::Tensor>& tensor;  // sizes of the output
  double scale = 1.0;
  int64_t zero_point = 0;
};

// Sizes and quantization of `other`, which is returned; undefined when not wanted.
at::Tensor check_other(const char* op, bool wanted, const LinearOther& other, at::IntArrayRef output_sizes,
                       bool dynamic, LinearArgs* args);

}  // namespace tae
