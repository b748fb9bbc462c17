// Portable kernels and the choice of a level.
#include "kernels/weight_only.h"

#include "kernels/weight_only-inl.h"

namespace tae::kernels {
namespace {

constexpr WeightOnlyKernels kPortable = {"sse2",     to_planes_f32, to_planes_bf16, unpack4,
                                         accumulate, finish_f32,    finish_bf16,    nullptr,
                                         nullptr,    nullptr,       nullptr};

}  // namespace

extern const WeightOnlyKernels weight_only_kernels__avx2;
extern const WeightOnlyKernels weight_only_kernels__avx512;
extern const WeightOnlyKernels weight_only_kernels__avx512vnni;

const WeightOnlyKernels& weight_only_kernels(Isa isa) {
  if (isa >= Isa::avx512_vnni) return weight_only_kernels__avx512vnni;
  if (isa >= Isa::avx512) return weight_only_kernels__avx512;
  return isa >= Isa::avx2 ? weight_only_kernels__avx2 : kPortable;
}

}  // namespace tae::kernels
