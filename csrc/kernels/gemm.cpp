#include "kernels/gemm.h"

namespace tae::kernels {

// Defined in gemm_portable.cpp and gemm__<isa>.cpp.
extern const GemmKernels kGemmPortable;
extern const GemmKernels kGemmAvx2;
extern const GemmKernels kGemmAvxVnni;
extern const GemmKernels kGemmAvx512;
extern const GemmKernels kGemmAvx512Vnni;
extern const GemmKernels kGemmAmx;

const GemmKernels& gemm_kernels(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return kGemmPortable;
    case Isa::avx2:
      return kGemmAvx2;
    case Isa::avx_vnni:
      return kGemmAvxVnni;
    case Isa::avx512:
      return kGemmAvx512;
    case Isa::avx512_vnni:
      return kGemmAvx512Vnni;
    case Isa::amx:
      return kGemmAmx;
  }
  return kGemmPortable;
}

}  // namespace tae::kernels
