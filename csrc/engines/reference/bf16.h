// bfloat16 in the reference engine: plain arithmetic, independent of the kernels that it
// checks. To bf16 rounds half to even, NaN stays NaN.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace tae::reference {

inline float from_bf16(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

inline uint16_t to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (std::isnan(x)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace tae::reference
