// What matmul and attention share: 8-bit operands as batches of matrices, and the run of an engine.
#pragma once

#include <new>

#include "core/env.h"
#include "core/fork.h"
#include "engines/order.h"
#include "ops/elementwise_common.h"

namespace tae {

// Terms of a sum over an operand's dimension `size`, as "size(-1)", that fit int32.
void check_sum_length(const Arg& arg, const char* size, int64_t terms);

// An operand as engines see it, with the memory that it points to.
struct MatrixOperand {
  at::Tensor owner;
  std::vector<int64_t> offsets;
  MatmulOperand data;

  MatrixOperand() = default;
  MatrixOperand(MatrixOperand&&) = default;  // a copy would point to the other's offsets
};

// The matrices of `t` in a batch of these leading sizes, to which it broadcasts; `count` >= 1 of
// them. Copied where elements of a row are apart, unless `any_side` and those of a column are not.
MatrixOperand matrix_operand(const Arg& arg, const kernels::Operand& checked, const at::Tensor& t,
                             bool any_side, at::IntArrayRef batch, int64_t count);

// Runs the engine that `select` finds; memory that it lacks is told with the operand's sizes.
template <typename Problem, typename Run>
void run_engine(const Arg& operand, at::IntArrayRef sizes, const Problem& p,
                SelectionOf<Run> (*select)(const Problem&, Engine)) {
  TORCH_CHECK_VALUE(init_error().empty(), init_error());
  const SelectionOf<Run> selection = select(p, settings().engine.load());
  TORCH_CHECK_NOT_IMPLEMENTED(selection.impl != nullptr, "torch_ao::", operand.op,
                              ": no engine accepts this call:\n", refusal_lines(selection.refused));
  SerialAfterFork serial;
  try {
    selection.impl(p);
  } catch (const std::bad_alloc&) {
    raise_out_of_memory(operand, sizes);
  }
}

}  // namespace tae
