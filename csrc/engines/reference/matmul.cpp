// The rule of engines/matmul.h as plain loops, accumulators of 64 bits.
#include "engines/matmul.h"

#include "engines/reference/operand.h"
#include "engines/reference/output.h"
#include "kernels/post_ops.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

using reference::centred;

[[gnu::noinline]] void multiply(const MatmulProblem& p) {
  for (int64_t i = 0; i < p.batch * p.m * p.n; ++i) {
    const int64_t matrix = i / (p.m * p.n), row = i / p.n % p.m, column = i % p.n;
    int64_t acc = 0;
    for (int64_t k = 0; k < p.k; ++k) acc += centred(p.a, matrix, row, k) * centred(p.b, matrix, k, column);
    float r = static_cast<float>(acc) * (p.a.scale * p.b.scale);
    for (const PostOp& op : p.post_ops) r = kernels::apply_post_op(op, r, 0.f);
    reference::store(p.output, p.output_dtype, i, r, p.output_scale, p.output_zero_point);
  }
}

void run(const MatmulProblem& p) {
  const kernels::DefaultFloatEnv env;
  multiply(p);
}

}  // namespace

Result<MatmulRun> find_matmul_reference(const MatmulProblem&) { return MatmulRun{run}; }

}  // namespace tae
