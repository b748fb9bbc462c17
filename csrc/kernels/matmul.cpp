// Portable kernels and the choice of a level.
#include "kernels/matmul.h"

#include "kernels/matmul-inl.h"

namespace tae::kernels {

extern const MatmulFinishFn matmul_finish__avx2;
extern const MatmulFinishFn matmul_finish__avx512;

MatmulFinishFn matmul_finish(Isa isa) {
  if (isa >= Isa::avx512) return matmul_finish__avx512;
  return isa >= Isa::avx2 ? matmul_finish__avx2 : finish;
}

}  // namespace tae::kernels
