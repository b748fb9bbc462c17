// Portable kernels and the choice of a level.
#include "kernels/attention.h"

#include "kernels/attention-inl.h"

namespace tae::kernels {

extern const AttentionKernels attention_kernels__avx2;
extern const AttentionKernels attention_kernels__avx512;

const AttentionKernels& attention_kernels(Isa isa) {
  if (isa >= Isa::avx512) return attention_kernels__avx512;
  return isa >= Isa::avx2 ? attention_kernels__avx2 : kAttentionKernels;
}

}  // namespace tae::kernels
