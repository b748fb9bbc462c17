// Portable kernel and the choice of a level.
#include "kernels/softmax.h"

#include "kernels/softmax-inl.h"

namespace tae::kernels {

extern const SoftmaxKernels softmax_kernels__avx2;
extern const SoftmaxKernels softmax_kernels__avx512;

const SoftmaxKernels& softmax_kernels(Isa isa) {
  if (isa >= Isa::avx512) return softmax_kernels__avx512;
  return isa >= Isa::avx2 ? softmax_kernels__avx2 : kSoftmaxKernels;
}

}  // namespace tae::kernels
