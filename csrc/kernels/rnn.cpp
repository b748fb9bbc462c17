// Portable kernels and the choice of a level.
#include "kernels/rnn.h"

#include "kernels/rnn-inl.h"

namespace tae::kernels {

extern const RnnKernels rnn_kernels__avx2;
extern const RnnKernels rnn_kernels__avx512;

const RnnKernels& rnn_kernels(Isa isa) {
  if (isa >= Isa::avx512) return rnn_kernels__avx512;
  return isa >= Isa::avx2 ? rnn_kernels__avx2 : kRnnKernels;
}

}  // namespace tae::kernels
