// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/quantized_attention-inl.h"

namespace tae::kernels {

extern const QuantizedAttentionKernels quantized_attention_kernels__avx2;
const QuantizedAttentionKernels quantized_attention_kernels__avx2 = kQuantizedAttentionKernels;

}  // namespace tae::kernels
