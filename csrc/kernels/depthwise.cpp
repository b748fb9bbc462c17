// Portable depthwise kernel and the choice of a level.
#include "kernels/depthwise.h"

#include "kernels/depthwise-inl.h"

namespace tae::kernels {

extern const DepthwiseKernels depthwise_kernels__avx2;
extern const DepthwiseKernels depthwise_kernels__avx512;

const DepthwiseKernels& depthwise_kernels(Isa isa) {
  if (isa >= Isa::avx512) return depthwise_kernels__avx512;
  return isa >= Isa::avx2 ? depthwise_kernels__avx2 : kDepthwiseKernels;
}

}  // namespace tae::kernels
