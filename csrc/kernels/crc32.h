// crc32 as zlib and gzip have it (RFC 1952, 8): x^32 + x^26 + x^23 + x^22 + x^16 + x^12 + x^11 +
// x^10 + x^8 + x^7 + x^5 + x^4 + x^2 + x + 1, least significant bit first, ones before and after.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/cpu_features.h"

namespace tae::kernels {

// Polynomials over GF(2) of degree < 32 modulo the one above; bit 31 is the coefficient of x^0.
namespace crc {
constexpr uint32_t kPolynomial = 0xedb88320u;
constexpr uint32_t kOne = 0x80000000u;

constexpr uint32_t times_x(uint32_t a) { return a >> 1 ^ (a & 1 ? kPolynomial : 0); }

constexpr uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t term = kOne; term != 0; term >>= 1, b = times_x(b))
    if (a & term) product ^= b;
  return product;
}

constexpr uint32_t power_of_x(uint64_t n) {
  uint32_t result = kOne;
  for (uint32_t square = times_x(kOne); n != 0; n >>= 1, square = multiply(square, square))
    if (n & 1) result = multiply(result, square);
  return result;
}
}  // namespace crc

// The register after `size` more bytes; without the ones before and after.
using Crc32Fn = uint32_t (*)(uint32_t state, const uint8_t* data, size_t size);
Crc32Fn crc32_kernel(Isa isa);
uint32_t crc32_bytes(uint32_t state, const uint8_t* data, size_t size);  // eight bytes at once by tables

// crc32 of data that follows data with crc32 `start` (0: none). All threads for long data.
uint32_t crc32(Isa isa, uint32_t start, const uint8_t* data, size_t size);

}  // namespace tae::kernels
