// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/weight_only-inl.h"

namespace tae::kernels {

extern const WeightOnlyKernels weight_only_kernels__avx512;
const WeightOnlyKernels weight_only_kernels__avx512 = {"avx512",   to_planes_f32, to_planes_bf16, unpack4,
                                                       accumulate, finish_f32,    finish_bf16,    nullptr,
                                                       nullptr,    nullptr,       nullptr};

}  // namespace tae::kernels
