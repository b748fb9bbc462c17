#include "kernels/histogram-inl.h"

namespace tae::kernels {

extern const HistogramKernels histogram_kernels__avx2;
const HistogramKernels histogram_kernels__avx2 = kHistogramKernels;

}  // namespace tae::kernels
