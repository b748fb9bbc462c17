// Quantized rows of a recurrent layer and their products with a matrix, as plain loops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engines/rnn.h"

namespace tae::reference {

// Integers of one row, without their zero point.
struct QuantizedState {
  float scale = 1.f;
  std::vector<int32_t> q;
};

// By the rule of a row.
QuantizedState quantize(const float* row, int64_t count);
// Rows with one scale and zero point, by the tensor rule.
std::vector<QuantizedState> quantize_together(const std::vector<std::vector<float>>& rows, bool reduce_range);

template <typename T>
std::vector<T> copy(const T* data, int64_t count) {
  return data == nullptr ? std::vector<T>() : std::vector<T>(data, data + count);
}

// A matrix with its own copies.
struct Matrix {
  Matrix() = default;
  Matrix(const RnnWeight& w, int64_t rows, int64_t columns)
      : k(columns),
        high(copy(w.high, rows * columns)),
        low(copy(w.low, rows * columns)),
        scale(copy(w.scale, rows)),
        low_scale(copy(w.low_scale, rows)) {}

  float times(const QuantizedState& s, int64_t row) const;
  float low_times(const QuantizedState& s, int64_t row) const;
  size_t bytes() const { return high.size() + low.size() + 4 * (scale.size() + low_scale.size()); }

  int64_t k = 0;
  std::vector<int8_t> high, low;
  std::vector<float> scale, low_scale;
};

}  // namespace tae::reference
