// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/depthwise-inl.h"

namespace tae::kernels {

extern const DepthwiseKernels depthwise_kernels__avx512;
const DepthwiseKernels depthwise_kernels__avx512 = kDepthwiseKernels;

}  // namespace tae::kernels
