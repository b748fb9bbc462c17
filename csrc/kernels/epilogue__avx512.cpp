// Compiled with the flags of its level: everything but the entry has internal linkage.
#include "kernels/epilogue-inl.h"

namespace tae::kernels {

void epilogue__avx512(const EpilogueParams& params, const EpilogueTile& tile);
void epilogue__avx512(const EpilogueParams& params, const EpilogueTile& tile) { run_epilogue(params, tile); }

}  // namespace tae::kernels
