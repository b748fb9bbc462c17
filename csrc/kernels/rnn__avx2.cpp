// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/rnn-inl.h"

namespace tae::kernels {

extern const RnnKernels rnn_kernels__avx2;
const RnnKernels rnn_kernels__avx2 = kRnnKernels;

}  // namespace tae::kernels
