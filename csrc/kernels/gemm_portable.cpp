// GEMM for any x86-64, in plain C++; the compiler makes SSE2 of it.
#include "kernels/gemm_block.h"

namespace tae::kernels {
namespace {

// One row times 16 columns of a panel. Products of u8 and s8 pairs are added in
// int32: exact for every input.
void row_16(const uint8_t* a, const int8_t* b, int64_t quads, int32_t* c, bool accumulate) {
  int32_t sum[16] = {};
  for (int64_t q = 0; q < quads; ++q) {
    const int8_t* w = b + q * kQuadBytes;
    for (int j = 0; j < 16; ++j) {
      int32_t s = 0;
      for (int i = 0; i < 4; ++i) s += int32_t{a[4 * q + i]} * w[4 * j + i];
      sum[j] += s;
    }
  }
  for (int j = 0; j < 16; ++j) c[j] = accumulate ? c[j] + sum[j] : sum[j];
}

void block(const GemmBlock& g) {
  for (int64_t j = 0; j < kPanelColumns; j += 16)
    for (int64_t r = 0; r < g.rows; ++r)
      row_16(g.a + r * g.a_stride, g.b + 4 * j, g.quads, g.c + r * g.c_stride + j, g.accumulate);
}

void gemv(const GemvRange& g) {
  for (int64_t p = 0; p < g.panels; ++p)
    for (int64_t j = 0; j < kPanelColumns; j += 16)
      row_16(g.a, g.b + p * g.panel_bytes + 4 * j, g.quads, g.c + p * kPanelColumns + j, false);
}

}  // namespace

extern const GemmKernels kGemmPortable;
const GemmKernels kGemmPortable = {.name = "1x16",
                                   .row_multiple = 1,
                                   .quad_multiple = 1,
                                   .row_unit = 1,
                                   .row_block = 12,
                                   .k_block = 256,
                                   .block = block,
                                   .gemv = gemv};

}  // namespace tae::kernels
