// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/rows-inl.h"

namespace tae::kernels {

extern const RowKernels row_kernels__avx512;
const RowKernels row_kernels__avx512 = kRowKernels;

}  // namespace tae::kernels
