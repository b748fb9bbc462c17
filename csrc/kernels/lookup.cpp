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

}  // namespace

void lookup_bytes__avx512vnni(const uint8_t* table, const uint8_t* src, int64_t count, uint8_t* dst);

LookupBytes lookup_bytes(Isa isa) {
  return isa >= Isa::avx512_vnni && has_byte_permutation() ? lookup_bytes__avx512vnni : lookup_loads;
}

}  // namespace tae::kernels
