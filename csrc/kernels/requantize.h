// The rule of a quantized output as numbers for kernels that keep sums in registers.
#pragma once

#include "kernels/byte_rule.h"
#include "kernels/epilogue.h"

namespace tae::kernels {

// False when output dtype, scale or a post-op other than relu and clamp does not allow it.
bool make_byte_rule(const EpilogueParams& params, ByteRule* rule);

}  // namespace tae::kernels
