#include "engines/rnn_parts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace tae {

RnnParts split_weight(const int16_t* weight, const float* scale, int64_t rows, int64_t columns) {
  RnnParts p;
  p.high.resize(rows * columns);
  p.low.resize(rows * columns);
  p.scale.resize(rows);
  p.low_scale.assign(scale, scale + rows);
  for (int64_t r = 0; r < rows; ++r) p.scale[r] = scale[r] * 256.f;
  for (int64_t i = 0; i < rows * columns; ++i) {
    const int high = (weight[i] + 128) >> 8;
    p.high[i] = static_cast<int8_t>(high);
    p.low[i] = static_cast<int8_t>(weight[i] - 256 * high);
  }
  return p;
}

RnnParts split_weight(const uint16_t* weight, const float* scale, int64_t rows, int64_t columns) {
  RnnParts p;
  p.high.resize(rows * columns);
  p.low.resize(rows * columns);
  p.scale.resize(rows);
  p.low_scale.resize(rows);
  const double smallest = std::numeric_limits<float>::min();
  const auto rounded = [](double v) {
    return static_cast<int8_t>(std::clamp(std::nearbyint(v), -127., 127.));
  };
  std::vector<double> w(columns);
  for (int64_t r = 0; r < rows; ++r) {
    double m = 0;
    for (int64_t k = 0; k < columns; ++k) {
      w[k] = static_cast<double>(std::bit_cast<float>(uint32_t{weight[r * columns + k]} << 16)) * scale[r];
      m = std::max(m, std::abs(w[k]));
    }
    // The low scale must be a normal number, too.
    p.scale[r] = static_cast<float>(m == 0 ? 1. : std::max(m / 127, 254 * smallest));
    p.low_scale[r] = p.scale[r] / 254.f;
    for (int64_t k = 0; k < columns; ++k) {
      const double v = w[k] / p.scale[r];
      const int8_t high = rounded(v);
      p.high[r * columns + k] = high;
      p.low[r * columns + k] = rounded((v - high) * 254);
    }
  }
  return p;
}

}  // namespace tae
