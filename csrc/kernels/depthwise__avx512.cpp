// Compiled with the flags of its level: everything but the entry has internal linkage.
#include "kernels/depthwise-inl.h"

namespace tae::kernels {

void depthwise__avx512(const DepthwisePixel& p);
void depthwise__avx512(const DepthwisePixel& p) { run_depthwise(p); }

}  // namespace tae::kernels
