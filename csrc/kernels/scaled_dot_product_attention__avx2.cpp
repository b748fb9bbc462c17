// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/scaled_dot_product_attention-inl.h"

namespace tae::kernels {

extern const SdpaKernels sdpa_kernels__avx2;
const SdpaKernels sdpa_kernels__avx2 = kSdpaKernels;

}  // namespace tae::kernels
