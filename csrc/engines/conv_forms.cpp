#include "engines/conv_forms.h"

#include <algorithm>

namespace tae {

ConvProblem forward_form(const ConvProblem& p, std::vector<int8_t>* weight) {
  const ConvGeometry& g = p.geometry;
  if (!g.transposed) return p;
  ConvProblem forward = p;
  forward.geometry.transposed = false;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t padding = (g.kernel[axis] - 1) * g.dilation[axis] - g.padding[axis];
    if (g.stride[axis] != 1 || padding < 0) return p;
    forward.geometry.padding[axis] = padding;
  }
  const int64_t taps = g.taps(), channels = g.group_channels();
  weight->resize(static_cast<size_t>(p.rows.n * p.rows.k));
  for (int64_t n = 0; n < p.rows.n; ++n)
    for (int64_t t = 0; t < taps; ++t)
      std::copy_n(p.rows.weight + n * p.rows.k + t * channels, channels,
                  weight->data() + n * p.rows.k + (taps - 1 - t) * channels);
  forward.rows.weight = weight->data();
  return forward;
}

}  // namespace tae
