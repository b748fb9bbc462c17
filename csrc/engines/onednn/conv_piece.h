// The piece of a convolution for which its weight is packed: a moderate size without
// padding, whose layout the primitives of every size of input are asked to take, and in
// which any output can be computed.
#pragma once

#include <cstdint>

#include "engines/onednn/conv_primitive.h"
#include "engines/onednn/conv_window.h"

namespace tae::onednn {

// Each output position along the axis reads its own input position.
bool is_flat(const ConvGeometry& g, int axis);
// Each output pixel reads the input pixel in its own place.
bool is_pixels(const ConvGeometry& g);

// What outputs [0, out) read along an axis: input positions [first, first + size), some of
// them outside, and the padding of the same convolution on these alone. A transposed one has
// padding that cuts positions off its output.
struct ConvSpan {
  int64_t first, size, padding;
};
ConvSpan span_of(const ConvGeometry& g, int axis, int64_t out);

// Pieces that cover an output, in memory order.
class ConvPieces {
 public:
  ConvPieces() = default;
  // `spec` without sizes: those of the piece are added, and its padding.
  explicit ConvPieces(const ConvSpec& spec);
  const ConvSpec& spec() const { return spec_; }

  int64_t count(const ConvArgs& args) const;
  int64_t input_bytes() const;
  int64_t outputs() const;

  struct Place {
    ConvWindow input;
    int64_t output[3];  // its first position
    int64_t size[3];    // of what lies inside the output
  };
  Place place(const ConvArgs& args, int64_t piece) const;

 private:
  ConvSpec spec_;
  int64_t first_[3] = {0, 0, 0};  // of the input, from the output's times stride (over it: transposed)
};

}  // namespace tae::onednn
