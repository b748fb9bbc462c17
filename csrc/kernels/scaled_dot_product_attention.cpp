// Portable kernel and the choice of a level.
#include "kernels/scaled_dot_product_attention.h"

#include "kernels/scaled_dot_product_attention-inl.h"

namespace tae::kernels {

extern const SdpaKernels sdpa_kernels__avx2;
extern const SdpaKernels sdpa_kernels__avx512;

const SdpaKernels& sdpa_kernels(Isa isa) {
  if (isa >= Isa::avx512) return sdpa_kernels__avx512;
  return isa >= Isa::avx2 ? sdpa_kernels__avx2 : kSdpaKernels;
}

}  // namespace tae::kernels
