// How the reference engine stores a real value.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/dtype.h"
#include "engines/reference/bf16.h"

namespace tae::reference {

// clamp(round_half_even(v) + zero_point, lo, hi); NaN gives lo.
inline int32_t to_quantized(float v, int32_t zero_point, int32_t lo, int32_t hi) {
  const float rounded = std::nearbyintf(v);
  if (std::isnan(rounded)) return lo;
  // Integers of this size are exact in f64, infinities stay ordered.
  const double q = static_cast<double>(rounded) + zero_point;
  return q <= lo ? lo : q >= hi ? hi : static_cast<int32_t>(q);
}

// Element i of the output: r itself, or r / scale + zero_point for a quantized dtype.
inline void store(void* output, DType d, int64_t i, float r, float scale, int32_t zero_point) {
  if (d == DType::f32) {
    static_cast<float*>(output)[i] = r;
  } else if (d == DType::bf16) {
    static_cast<uint16_t*>(output)[i] = to_bf16(r);
  } else {
    const int32_t q = to_quantized(r / scale, zero_point, quant_min(d), quant_max(d));
    static_cast<uint8_t*>(output)[i] = static_cast<uint8_t>(q);  // the low byte serves both types
  }
}

}  // namespace tae::reference
