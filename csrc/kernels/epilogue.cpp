// Portable epilogue and the choice of a level.
#include "kernels/epilogue.h"

#include "kernels/epilogue-inl.h"

namespace tae::kernels {

void epilogue__avx2(const EpilogueParams& params, const EpilogueTile& tile);
void epilogue__avx512(const EpilogueParams& params, const EpilogueTile& tile);

namespace {

void epilogue__portable(const EpilogueParams& params, const EpilogueTile& tile) {
  run_epilogue(params, tile);
}

}  // namespace

EpilogueFn epilogue(Isa isa) {
  if (isa >= Isa::avx512) return epilogue__avx512;
  return isa >= Isa::avx2 ? epilogue__avx2 : epilogue__portable;
}

}  // namespace tae::kernels
