// Portable kernels and the choice of a level.
#include "kernels/quantize.h"

#include "kernels/quantize-inl.h"

namespace tae::kernels {

extern const QuantizeKernels quantize_kernels__avx2;
extern const QuantizeKernels quantize_kernels__avx512;

const QuantizeKernels& quantize_kernels(Isa isa) {
  if (isa >= Isa::avx512) return quantize_kernels__avx512;
  return isa >= Isa::avx2 ? quantize_kernels__avx2 : kQuantizeKernels;
}

}  // namespace tae::kernels
