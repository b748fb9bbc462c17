// How XNNPACK rounds a quantized output, and which problems it can hold that way. The
// bias becomes int32, round(bias / (s_x * s_w[n])), and the sum is multiplied once by
// s_x * s_w[n] / s_out. The accumulator stays exact; y may differ by one from the rule
// of engines/linear.h where v = r / s_out lies within
// 0.5 * s_x * s_w[n] / s_out + 2^-20 * |v| of a rounding boundary.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "engines/linear.h"

namespace tae::xnnpack {

// relu and clamp in any sequence are one clamp to [low, high].
struct RealBounds {
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();
};
Result<RealBounds> fuse_post_ops(const PostOps& post_ops);

// A u8 tensor is the s8 tensor with the top bit flipped and a zero point 128 lower.
inline int32_t s8_zero_point(DType dtype, int32_t zero_point) {
  return zero_point - (dtype == DType::qu8 ? 128 : 0);
}

inline void flip_sign_bits(const uint8_t* src, uint8_t* dst, int64_t count) {
  for (int64_t i = 0; i < count; ++i) dst[i] = src[i] ^ 0x80;
}

// The quantized image of a real bound. Quantization is monotone, so clamping y to
// the images equals quantizing the clamped real value, exactly.
int8_t quantized_bound(float real, float scale, int32_t zero_point);

// The int32 bias of each channel, or what the int32 sum or its rounding could not hold.
Result<std::vector<int32_t>> fold_bias(const LinearProblem& p);

}  // namespace tae::xnnpack
