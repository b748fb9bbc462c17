// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/embedding-inl.h"

namespace tae::kernels {

extern const EmbeddingKernels embedding_kernels__avx512;
const EmbeddingKernels embedding_kernels__avx512 = kEmbeddingKernels;

}  // namespace tae::kernels
