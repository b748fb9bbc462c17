// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/softmax-inl.h"

namespace tae::kernels {

extern const SoftmaxKernels softmax_kernels__avx512;
const SoftmaxKernels softmax_kernels__avx512 = kSoftmaxKernels;

}  // namespace tae::kernels
