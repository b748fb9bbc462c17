// Bytes through a table of 256: any function of one 8-bit value. Single-threaded.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"

namespace tae::kernels {

// dst[i] = table[src[i]]; src and dst may be the same.
using LookupBytes = void (*)(const uint8_t* table, const uint8_t* src, int64_t count, uint8_t* dst);

// As many for each of `rows` runs: one after the other in src, `step` bytes apart in dst.
using LookupRows = void (*)(const uint8_t* table, const uint8_t* src, int64_t rows, int64_t count,
                            uint8_t* dst, int64_t step);

// The best of level <= isa: the CPU's byte permutation (AVX512-VBMI, looked for at
// avx512_vnni and above) or one load a byte.
LookupBytes lookup_bytes(Isa isa);
LookupRows lookup_rows(Isa isa);

}  // namespace tae::kernels
