// Portable kernels and the choice of a level.
#include "kernels/quantized_attention.h"

#include "kernels/quantized_attention-inl.h"

namespace tae::kernels {

extern const QuantizedAttentionKernels quantized_attention_kernels__avx2;
extern const QuantizedAttentionKernels quantized_attention_kernels__avx512;

const QuantizedAttentionKernels& quantized_attention_kernels(Isa isa) {
  if (isa >= Isa::avx512) return quantized_attention_kernels__avx512;
  return isa >= Isa::avx2 ? quantized_attention_kernels__avx2 : kQuantizedAttentionKernels;
}

}  // namespace tae::kernels
