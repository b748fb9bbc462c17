// Portable kernels and the choice of a level.
#include "kernels/elementwise.h"

#include "kernels/elementwise-inl.h"

namespace tae::kernels {

extern const ElementwiseKernels elementwise_kernels__avx2;
extern const ElementwiseKernels elementwise_kernels__avx512;

const ElementwiseKernels& elementwise_kernels(Isa isa) {
  if (isa >= Isa::avx512) return elementwise_kernels__avx512;
  return isa >= Isa::avx2 ? elementwise_kernels__avx2 : kElementwiseKernels;
}

}  // namespace tae::kernels
