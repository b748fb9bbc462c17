// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/fake_quantize-inl.h"

namespace tae::kernels {

extern const FakeQuantizeKernels fake_quantize_kernels__avx2;
const FakeQuantizeKernels fake_quantize_kernels__avx2 = kFakeQuantizeKernels;

}  // namespace tae::kernels
