// Portable kernels and the choice of a level.
#include "kernels/rows.h"

#include "kernels/rows-inl.h"

namespace tae::kernels {

extern const RowKernels row_kernels__avx2;
extern const RowKernels row_kernels__avx512;

const RowKernels& row_kernels(Isa isa) {
  if (isa >= Isa::avx512) return row_kernels__avx512;
  return isa >= Isa::avx2 ? row_kernels__avx2 : kRowKernels;
}

}  // namespace tae::kernels
