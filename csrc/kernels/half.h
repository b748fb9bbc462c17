// IEEE binary16 without instructions for it: exact to float, round half even from float.
#pragma once

#include <bit>
#include <cstdint>

namespace tae::kernels {
namespace {

[[maybe_unused]] inline float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t exponent = (h >> 10) & 0x1f;
  const uint32_t fraction = h & 0x3ff;
  if (exponent == 31)  // a NaN becomes quiet, as vcvtph2ps has it
    return std::bit_cast<float>(sign | 0x7f800000 | (fraction << 13) | (fraction != 0 ? 0x400000 : 0));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  // Subnormal: fraction * 2^-24, exact.
  const float value = static_cast<float>(static_cast<int32_t>(fraction)) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}

[[maybe_unused]] inline uint16_t float_to_half(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and above round to infinity
  if (magnitude >= 0x38800000) {                      // normal: 2^-14 and above
    const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
    return static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13));
  }
  if (magnitude < 0x33000000) return sign;  // below 2^-25
  const uint32_t exponent = magnitude >> 23;
  const uint32_t fraction = (magnitude & 0x7fffff) | 0x800000;
  const uint32_t shift = 126 - exponent;  // to units of 2^-24
  const uint32_t whole = fraction >> shift;
  const uint32_t rest = fraction & ((1u << shift) - 1);
  const uint32_t half = 1u << (shift - 1);
  const uint32_t up = rest > half || (rest == half && (whole & 1)) ? 1 : 0;
  return static_cast<uint16_t>(sign | (whole + up));
}

}  // namespace
}  // namespace tae::kernels
