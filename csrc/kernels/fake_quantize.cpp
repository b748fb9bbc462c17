// Portable kernels and the choice of a level.
#include "kernels/fake_quantize.h"

#include "kernels/fake_quantize-inl.h"

namespace tae::kernels {

extern const FakeQuantizeKernels fake_quantize_kernels__avx2;
extern const FakeQuantizeKernels fake_quantize_kernels__avx512;

const FakeQuantizeKernels& fake_quantize_kernels(Isa isa) {
  if (isa >= Isa::avx512) return fake_quantize_kernels__avx512;
  return isa >= Isa::avx2 ? fake_quantize_kernels__avx2 : kFakeQuantizeKernels;
}

}  // namespace tae::kernels
