// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/matmul-inl.h"

namespace tae::kernels {

extern const MatmulFinishFn matmul_finish__avx2;
const MatmulFinishFn matmul_finish__avx2 = finish;

}  // namespace tae::kernels
