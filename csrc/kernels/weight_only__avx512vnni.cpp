// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/weight_only_vnni-inl.h"

namespace tae::kernels {

extern const WeightOnlyKernels weight_only_kernels__avx512vnni;
const WeightOnlyKernels weight_only_kernels__avx512vnni = {
    "avx512 vnni", to_planes_f32, to_planes_bf16, unpack4, accumulate, finish_f32,
    finish_bf16,   row<8>,        row<4>,         rows<8>, rows<4>};

}  // namespace tae::kernels
