// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/quantize-inl.h"

namespace tae::kernels {

extern const QuantizeKernels quantize_kernels__avx512;
const QuantizeKernels quantize_kernels__avx512 = kQuantizeKernels;

}  // namespace tae::kernels
