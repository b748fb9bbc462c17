// Weights of a recurrent layer in two int8 parts: 16 bits for kernels of 8.
//
// int16: w = s * q with q in [-32768, 32639] is high * (256 s) + low * s, high = (q + 128) >> 8, low =
// q - 256 high.
//
// bfloat16: a row of real values w with m = max|w|: s = m / 127 (0: 1; not below 254 times the smallest
// normal float), high = clamp(round_half_even(w / s), -127, 127), low = round_half_even((w - high * s)
// / s * 254) within [-127, 127]; w is high * s + low * (s / 254) up to s / 508 = m / 64516.
// In double, scales rounded to float.
//
// Torch-free.
#pragma once

#include <vector>

#include "engines/rnn.h"

namespace tae {

struct RnnParts {
  RnnWeight view() const { return {high.data(), scale.data(), low.data(), low_scale.data()}; }

  std::vector<int8_t> high, low;        // [rows][columns]
  std::vector<float> scale, low_scale;  // [rows]
};

constexpr int64_t kMaxRnnInt16 = 32639;  // of q
// Steps between products with the second parts of int16 weights (engines/rnn.h): in a first layer, whose
// h follows the data, and in the others. On Resemblyzer's voices 2 and 8 leave 1 dB less noise than 4 and
// 4, for a fifth less of these products.
constexpr int64_t kRnnFirstLowPeriod = 2;
constexpr int64_t kRnnLowPeriod = 8;

// weight: int16 [rows][columns], at most kMaxRnnInt16; 256 times the scales are finite.
RnnParts split_weight(const int16_t* weight, const float* scale, int64_t rows, int64_t columns);

// weight: bfloat16 [rows][columns], finite; real values are those times `scale` of the row.
RnnParts split_weight(const uint16_t* weight, const float* scale, int64_t rows, int64_t columns);

}  // namespace tae
