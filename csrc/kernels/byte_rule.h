// How real values become the bytes of a quantized output: plain numbers, made by
// requantize.h.
#pragma once

#include <cstdint>

namespace tae::kernels {

struct ScaleInverse {
  float high = 0.f, low = 0.f;
};

// From a real value r, before post-ops, to the byte:
//   clamp(round_half_even(fma(r, high, r * low)) + zero_point, least, most) ^ flip
// in the u8 domain; flip brings qs8 back. |r| must be below kMostQuotient * output_scale.
struct ByteRule {
  ScaleInverse inverse;
  int16_t zero_point = 0;
  uint8_t least = 0, most = 255, flip = 0;
};

constexpr double kMostQuotient = 1 << 30;

}  // namespace tae::kernels
