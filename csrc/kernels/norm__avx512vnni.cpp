// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/norm-inl.h"
#include "kernels/norm_columns_vnni-inl.h"

namespace tae::kernels {
namespace {

constexpr NormKernels with_columns(NormKernels k) {
  k.column_sums = column_sums_vnni;
  return k;
}

}  // namespace

extern const NormKernels norm_kernels__avx512vnni;
const NormKernels norm_kernels__avx512vnni = with_columns(kNormKernels);

}  // namespace tae::kernels
