// One quantized row as the kernels behind its quantization need it.
#pragma once

#include <cstdint>

namespace tae::kernels {

// Quantization parameters of one row as the epilogue needs them. The integers
// are in the u8 domain: symmetric and qs8 rows are shifted by +128, so that
// their zero point is 128 (+ zp).
struct RowParams {
  float scale = 1.f;       // NaN when the row holds a NaN or infinity
  int32_t zero_point = 0;  // u8 domain
  int32_t sum = 0;         // sum of the k u8 values (padding excluded), mod 2^32
};

}  // namespace tae::kernels
