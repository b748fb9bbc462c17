#include "kernels/upsample.h"

namespace tae::kernels {

void double_lines__avx512(const void* above, const void* below, int64_t width, int64_t channels, DType dtype,
                          int32_t zero_point, void* upper, void* lower);

DoubleLines double_lines(Isa isa) { return isa >= Isa::avx512 ? double_lines__avx512 : nullptr; }

}  // namespace tae::kernels
