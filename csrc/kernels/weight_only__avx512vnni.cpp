// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/weight4_vnni-inl.h"

namespace tae::kernels {
namespace {

TAE_VEC void dot_u8(Columns& s, __m512i x, const Columns& w) {
  s.c0 = _mm512_dpbusd_epi32(s.c0, x, w.c0);
  s.c1 = _mm512_dpbusd_epi32(s.c1, x, w.c1);
  s.c2 = _mm512_dpbusd_epi32(s.c2, x, w.c2);
  s.c3 = _mm512_dpbusd_epi32(s.c3, x, w.c3);
}

// Both planes meet a vector of weights while it is in a register.
template <int kPlanes>
[[gnu::noinline]] void row8_body(const WeightOnlyRow& row) noexcept {
  for (int64_t p = 0; p < row.panels; ++p) {
    const uint8_t* b = row.weight + p * row.panel_bytes;
    Columns high = all(_mm512_setzero_si512()), low = high;
    for (int64_t k = 0; k < row.k_pad; k += 4, b += 256) {
      for (int64_t line = 0; line < 256; line += 64) fetch(b + line);
      const Columns w = load_columns(b);
      dot_u8(high, quad(row.high + k), w);
      if constexpr (kPlanes == 2) dot_u8(low, quad(row.low + k), w);
    }
    alignas(64) int32_t c[2][kColumns];
    store_columns(high, c[0]);
    store_columns(low, c[1]);
    combine8_body(kPlanes, c[0], c[1], row.column_sum + kColumns * p, row.v + kColumns * p);
  }
}

void row8(const WeightOnlyRow& row) {
  const DefaultFloatEnv env;
  if (row.planes == 2)
    row8_body<2>(row);
  else
    row8_body<1>(row);
}

}  // namespace

extern const WeightOnlyKernels weight_only_kernels__avx512vnni;
const WeightOnlyKernels weight_only_kernels__avx512vnni = {
    "avx512 vnni", to_planes_f32, to_planes_bf16, unpack4, combine8, accumulate4,
    finish_f32,    finish_bf16,   row8,           row4,    rows4,    sum_groups};

}  // namespace tae::kernels
