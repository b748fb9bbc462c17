#include "kernels/depthwise_lines.h"

namespace tae::kernels {

extern const LineKernels line_kernels__avx512vnni;

const LineKernels* line_kernels(Isa isa) {
  return isa >= Isa::avx512_vnni ? &line_kernels__avx512vnni : nullptr;
}

}  // namespace tae::kernels
