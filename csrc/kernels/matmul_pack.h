// The levels of pack_panel that exist; matmul_pack.cpp chooses.
#pragma once

#include "kernels/gemm_block.h"
#include "kernels/matmul.h"

namespace tae::kernels {

// Quads of k whose 4 rows exist, before those that k ends in.
inline int64_t whole_quads(const PanelSource& s, int64_t quads) { return s.k / 4 < quads ? s.k / 4 : quads; }

// Packs quads [begin, end) element by element.
void pack_quads(const PanelSource& s, int64_t begin, int64_t end, int8_t* panel);

void pack_panel__sse2(const PanelSource& s, int64_t quads, int8_t* panel);
void pack_panel__avx512(const PanelSource& s, int64_t quads, int8_t* panel);

}  // namespace tae::kernels
