// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/fake_quantize-inl.h"

namespace tae::kernels {

extern const FakeQuantizeKernels fake_quantize_kernels__avx512;
const FakeQuantizeKernels fake_quantize_kernels__avx512 = kFakeQuantizeKernels;

}  // namespace tae::kernels
