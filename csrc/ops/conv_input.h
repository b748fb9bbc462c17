// The float input of a dynamic convolution as integers.
#pragma once

#include <vector>

#include "core/checks.h"
#include "engines/linear.h"
#include "kernels/choose_qparams.h"

namespace tae {

// Integers of the u8 domain (kernels/row_params.h) and their qparams: one for the tensor, or
// one for each image. An image (or tensor) with a NaN or infinity is all zero with a NaN scale.
struct QuantizedImages {
  at::Tensor data;  // uint8, the sizes of the input
  std::vector<kernels::QParams> qparams;
};

// input [N, *] float32 or bfloat16, not empty. `per_row` of the rule means an image, and the
// row rule of engines/linear.h is then that of an image.
QuantizedImages quantize_images(const Arg& arg, const at::Tensor& input, const DynamicQuant& rule);

}  // namespace tae
