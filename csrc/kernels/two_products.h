// round_half_even(x / scale) as two products, for scales where they are proven to give the
// same integers as the division in f32: with high + low near 1 / scale,
//   fma(x, high, x * low)
// is the true quotient times 1 + e with |e| < 2^-46.4, rounded once: the same integer unless
// x / scale is that close to a number m half a unit in the last place beside a tie h = H / 2.
// With scale = S * 2^a, S of 24 bits, x - h * scale is a whole number j of 2^(a - 1), and
// x / scale is (j - T) / (2 * h * S) away from m, where T = S / 2^(23 - floor(log2(h))): closer
// than e only if S is within 6 of a multiple of that power of two, 2^16 at the least for
// |h| < 256. A power of two has an exact inverse.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/byte_rule.h"

namespace tae::kernels {
namespace {

// Inside these bounds no step leaves the normal range for a quotient that matters
// (0.25 <= |q| <= 512).
constexpr float kLeastDivisor = 0x1p-60f, kMostDivisor = 0x1p60f;

// Whether the integers in [-256, 256] are those of the division; others stay outside.
[[gnu::always_inline]] inline bool two_products_divide(float scale) {
  uint32_t bits;
  std::memcpy(&bits, &scale, sizeof bits);
  const bool power_of_two = (bits & 0x7fffff) == 0;
  return scale >= kLeastDivisor && scale <= kMostDivisor && (power_of_two || ((bits + 7) & 0xffff) > 14);
}

// The two factors, in round to nearest.
[[gnu::always_inline]] inline ScaleInverse scale_inverse(float scale) {
  const double exact = 1.0 / scale;
  const float high = static_cast<float>(exact);
  return {high, static_cast<float>(exact - high)};
}

}  // namespace
}  // namespace tae::kernels
