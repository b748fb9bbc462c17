// What the convolutions of 1 to 3 dimensions and their transposed forms share: checks,
// the engine state, one call.
#pragma once

#include "engines/conv.h"
#include "ops/linear_common.h"

namespace tae {

// The numbers of a schema; each list has one value for each spatial dimension.
struct ConvNumbers {
  int rank = 2;  // spatial dimensions
  bool transposed = false;
  at::IntArrayRef stride;
  at::IntArrayRef padding;
  at::IntArrayRef output_padding;  // transposed only
  at::IntArrayRef dilation;
  int64_t groups = 1;
};

// [N, C, *S] -> [N, n, *S'], channels last. weight [n, C / groups, *kernel], transposed
// [C, n / groups, *kernel]. `input` has a checked dtype; everything else is checked here.
at::Tensor run_conv(const LinearBaked& baked, const ConvNumbers& numbers, const at::Tensor& input,
                    const LinearOther& other);

}  // namespace tae
