// Weights of a recurrent layer in two int8 parts: 16 bits for kernels of 8.
//
// A row of real values w with m = max|w|: s = m / 127 (0: 1; not below 254 times the smallest
// normal float), high = clamp(round_half_even(w / s), -127, 127), low = round_half_even((w - high * s)
// / s * 254) within [-127, 127]; w is high * s + low * (s / 254) up to s / 508 = m / 64516.
// In double, scales rounded to float. Torch-free.
#pragma once

#include <vector>

#include "engines/rnn.h"

namespace tae {

struct RnnParts {
  RnnWeight view() const { return {high.data(), scale.data(), low.data(), low_scale.data()}; }

  std::vector<int8_t> high, low;        // [rows][columns]
  std::vector<float> scale, low_scale;  // [rows]
};

// weight: bfloat16 [rows][columns], finite; real values are those times `scale` of the row.
RnnParts split_weight(const uint16_t* weight, const float* scale, int64_t rows, int64_t columns);

}  // namespace tae
