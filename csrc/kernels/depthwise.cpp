// Portable depthwise kernel and the choice of a level.
#include "kernels/depthwise.h"

#include "kernels/depthwise-inl.h"

namespace tae::kernels {

void depthwise__avx2(const DepthwisePixel& p);
void depthwise__avx512(const DepthwisePixel& p);

namespace {

void depthwise__portable(const DepthwisePixel& p) { run_depthwise(p); }

}  // namespace

DepthwiseFn depthwise(Isa isa) {
  if (isa >= Isa::avx512) return depthwise__avx512;
  return isa >= Isa::avx2 ? depthwise__avx2 : depthwise__portable;
}

}  // namespace tae::kernels
