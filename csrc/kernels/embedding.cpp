// Portable kernels and the choice of a level.
#include "kernels/embedding.h"

#include "kernels/embedding-inl.h"

namespace tae::kernels {

extern const EmbeddingKernels embedding_kernels__avx2;
extern const EmbeddingKernels embedding_kernels__avx512;

const EmbeddingKernels& embedding_kernels(Isa isa) {
  if (isa >= Isa::avx512) return embedding_kernels__avx512;
  return isa >= Isa::avx2 ? embedding_kernels__avx2 : kEmbeddingKernels;
}

}  // namespace tae::kernels
