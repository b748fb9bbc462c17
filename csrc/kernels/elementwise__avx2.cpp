// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/elementwise-inl.h"

namespace tae::kernels {

extern const ElementwiseKernels elementwise_kernels__avx2;
const ElementwiseKernels elementwise_kernels__avx2 = kElementwiseKernels;

}  // namespace tae::kernels
