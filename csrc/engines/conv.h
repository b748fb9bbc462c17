// The convolution family as engines see it: each output pixel is one row of a linear
// problem (engines/linear.h, whose rule for every rounding holds here too).
//
//   row(pixel, group)[tap][c] = input pixel under the tap, channel c of the group
//                               padding and the gaps of a transposed convolution hold
//                               the input's zero point, that is, the real value 0
//
// 1 and 2 spatial dimensions are 3 with leading ones of size 1. Tensors are channels
// last: [batch][d][h][w][channels]. Torch-free.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engines/linear.h"

namespace tae {

struct ConvGeometry {
  bool transposed = false;
  int64_t groups = 1;
  int64_t in_channels = 0;
  int64_t kernel[3] = {1, 1, 1};
  int64_t stride[3] = {1, 1, 1};
  int64_t padding[3] = {0, 0, 0};
  int64_t dilation[3] = {1, 1, 1};

  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t group_channels() const { return in_channels / groups; }

  // Input position along one axis that output position `out` reads at `tap`; -1: none.
  int64_t source(int axis, int64_t out, int64_t tap, int64_t input_size) const {
    int64_t at;
    if (transposed) {
      at = out + padding[axis] - tap * dilation[axis];
      if (at < 0 || at % stride[axis] != 0) return -1;
      at /= stride[axis];
    } else {
      at = out * stride[axis] - padding[axis] + tap * dilation[axis];
    }
    return at >= 0 && at < input_size ? at : -1;
  }
};

// rows.k = taps * channels of a group, rows.n = all output channels,
// rows.weight = [n][tap][channel of the group]. Never rows.dynamic: the op quantizes, and
// rows.qparams_in_call says so.
struct ConvProblem {
  LinearProblem rows;
  ConvGeometry geometry;
};

// input: [batch][input_size][in_channels], output and other: [batch][output_size][n].
// m is batch times the pixels of the output.
struct ConvArgs : LinearArgs {
  int64_t batch = 0;
  int64_t input_bytes = 0;  // of the whole input
  int64_t input_size[3] = {1, 1, 1};
  int64_t output_size[3] = {1, 1, 1};
};

class ConvImpl {
 public:
  virtual ~ConvImpl() = default;
  // As LinearImpl's.
  virtual void run(const ConvArgs& args) const = 0;
  virtual const char* engine() const = 0;
  virtual std::string description() const = 0;
  virtual size_t packed_bytes() const = 0;
};
using ConvImplPtr = std::shared_ptr<const ConvImpl>;

// The linear problem of one group: n / groups columns.
inline LinearProblem group_problem(const ConvProblem& p, int64_t group) {
  LinearProblem g = p.rows;
  g.n = p.rows.n / p.geometry.groups;
  const int64_t first = group * g.n;
  g.weight += first * g.k;
  if (g.weight_scale_size != 1) {
    g.weight_scale += first;
    g.weight_scale_size = g.n;
    if (g.weight_zero_point != nullptr) g.weight_zero_point += first;
  }
  if (g.bias != nullptr) g.bias += first;
  if (g.slope != nullptr) g.slope += first;
  if (g.affine_weight != nullptr) {
    g.affine_weight += first;
    g.affine_bias += first;
  }
  return g;
}

Result<ConvImplPtr> make_conv_native(const ConvProblem& p);
Result<ConvImplPtr> make_conv_onednn(const ConvProblem& p);
Result<ConvImplPtr> make_conv_xnnpack(const ConvProblem& p);
Result<ConvImplPtr> make_conv_reference(const ConvProblem& p);

}  // namespace tae
