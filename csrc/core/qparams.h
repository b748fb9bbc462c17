// Quantization parameters as they come through a schema: numbers, 1-element tensors,
// or one value a channel.
#pragma once

#include <cstdint>
#include <vector>

#include "core/checks.h"

namespace tae {

// Value of a 1-element tensor, not yet checked for its range.
double scale_value(const Arg& arg, const at::Tensor& t);
int64_t zero_point_value(const Arg& arg, const at::Tensor& t);

// float32 (with `allow_double`, float64) scales, each checked; any strides.
std::vector<float> scale_values(const Arg& arg, const at::Tensor& t, bool allow_double = false);
// int32 or int64 zero points, each checked to be in [lo, hi].
std::vector<int32_t> zero_point_values(const Arg& arg, const at::Tensor& t, int64_t lo, int64_t hi);
// float32 numbers, each finite.
std::vector<float> finite_values(const Arg& arg, const at::Tensor& t);

// Scale and zero point of an output: 1 and 0 for a float dtype.
struct OutputQParams {
  float scale = 1.f;
  int32_t zero_point = 0;
};
OutputQParams check_output_qparams(const char* op, DType dtype, double scale, int64_t zero_point);

// Integers that a quantization may give: lo <= hi inside the dtype's range.
struct QuantBounds {
  int32_t lo = 0;
  int32_t hi = 255;
};
QuantBounds check_bounds(const char* op, int64_t quant_min, int64_t quant_max, DType dtype);

}  // namespace tae
