// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/attention-inl.h"

namespace tae::kernels {

extern const AttentionKernels attention_kernels__avx512;
const AttentionKernels attention_kernels__avx512 = kAttentionKernels;

}  // namespace tae::kernels
