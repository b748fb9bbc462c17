// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/norm-inl.h"

namespace tae::kernels {

extern const NormKernels norm_kernels__avx2;
const NormKernels norm_kernels__avx2 = kNormKernels;

}  // namespace tae::kernels
