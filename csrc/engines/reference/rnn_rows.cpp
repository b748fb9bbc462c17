#include "engines/reference/rnn_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/choose_qparams.h"

namespace tae::reference {
namespace {

// NaN when a value is not finite.
float largest(const float* row, int64_t count) {
  float m = 0.f;
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(row[i])) return std::numeric_limits<float>::quiet_NaN();
    m = std::fabs(row[i]) > m ? std::fabs(row[i]) : m;
  }
  return m;
}

float dot(const QuantizedState& s, const int8_t* weight, float weight_scale) {
  int64_t acc = 0;
  for (size_t k = 0; k < s.q.size(); ++k) acc += int64_t{s.q[k]} * weight[k];
  return static_cast<float>(static_cast<int32_t>(acc)) * (s.scale * weight_scale);
}

}  // namespace

QuantizedState quantize(const float* row, int64_t count) {
  const float m = largest(row, count);
  QuantizedState s{m / 127.f, std::vector<int32_t>(count)};
  if (std::isnan(m)) return s;
  if (s.scale < std::numeric_limits<float>::min())
    s.scale = m == 0.f ? 1.f : std::numeric_limits<float>::min();
  const float inverse = 1.f / s.scale;
  for (int64_t i = 0; i < count; ++i) {
    const float v = row[i] * inverse;
    const float bounded = v > -127.f ? (v < 127.f ? v : 127.f) : -127.f;
    s.q[i] = static_cast<int32_t>(std::nearbyintf(bounded));
  }
  return s;
}

std::vector<QuantizedState> quantize_together(const std::vector<std::vector<float>>& rows,
                                              bool reduce_range) {
  const kernels::QRange range = kernels::dynamic_range(/*symmetric=*/false, reduce_range);
  float low = 0.f, high = 0.f;
  bool finite = true;
  for (const std::vector<float>& row : rows)
    for (const float v : row) {
      finite = finite && std::isfinite(v);
      low = v < low ? v : low;
      high = v > high ? v : high;
    }
  kernels::QParams p{std::numeric_limits<float>::quiet_NaN(), 0};
  if (finite) p = kernels::tensor_qparams(low, high, /*symmetric=*/false, range);
  std::vector<QuantizedState> states;
  for (const std::vector<float>& row : rows) {
    QuantizedState s{p.scale, std::vector<int32_t>(row.size())};
    for (size_t i = 0; i < row.size() && finite; ++i) {
      const double q = std::nearbyintf(row[i] * (1.f / p.scale)) + static_cast<double>(p.zero_point);
      s.q[i] = static_cast<int32_t>(std::clamp<double>(q, range.lo, range.hi)) - p.zero_point;
    }
    states.push_back(std::move(s));
  }
  return states;
}

float Matrix::times(const QuantizedState& s, int64_t row) const {
  return dot(s, high.data() + row * k, scale[row]);
}

float Matrix::low_times(const QuantizedState& s, int64_t row) const {
  return dot(s, low.data() + row * k, low_scale[row]);
}

}  // namespace tae::reference
