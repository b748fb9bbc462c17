#include "kernels/lookup.h"

namespace tae::kernels {
namespace {

void lookup_loads(const uint8_t* table, const uint8_t* src, int64_t count, uint8_t* dst) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    uint8_t y[8];
    for (int j = 0; j < 8; ++j) y[j] = table[src[i + j]];
    for (int j = 0; j < 8; ++j) dst[i + j] = y[j];
  }
  for (; i < count; ++i) dst[i] = table[src[i]];
}

void lookup_rows_loads(const uint8_t* table, const uint8_t* src, int64_t rows, int64_t count, uint8_t* dst,
                       int64_t step) {
  for (int64_t r = 0; r < rows; ++r) lookup_loads(table, src + r * count, count, dst + r * step);
}

bool permutes(Isa isa) { return isa >= Isa::avx512_vnni && has_byte_permutation(); }

}  // namespace

void lookup_bytes__avx512vnni(const uint8_t* table, const uint8_t* src, int64_t count, uint8_t* dst);
void lookup_rows__avx512vnni(const uint8_t* table, const uint8_t* src, int64_t rows, int64_t count,
                             uint8_t* dst, int64_t step);

LookupBytes lookup_bytes(Isa isa) { return permutes(isa) ? lookup_bytes__avx512vnni : lookup_loads; }
LookupRows lookup_rows(Isa isa) { return permutes(isa) ? lookup_rows__avx512vnni : lookup_rows_loads; }

}  // namespace tae::kernels
