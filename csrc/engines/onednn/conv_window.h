// oneDNN sees no padding: a window of the input is copied with the zero point around it.
//
// Its own padding costs as much (it sums the weights of every border on each call) and is
// wrong in 3.7: sums that two threads get wrong, positions whose taps are all outside
// (upstream issue 5942), stale columns (5080), what a transposed one has behind its last input. The
// copy also turns s8 into u8, which oneDNN is better at, and which it gets right for few
// channels and columns that do not fill its blocks.
#pragma once

#include <cstdint>

#include "kernels/rows.h"

namespace tae::onednn {

// A box of input positions, some of them outside.
struct ConvWindow {
  int64_t batch = 0;  // its first image
  int64_t first[3] = {0, 0, 0};
  int64_t size[3] = {1, 1, 1};

  int64_t lines_of_image() const { return size[0] * size[1]; }
};

// Images of bytes, [batch][size][channels].
struct ConvImages {
  const uint8_t* data = nullptr;
  int64_t size[3] = {1, 1, 1};
  int64_t channels = 0;
  uint8_t zero_point = 0;                     // of the copy
  const kernels::RowKernels* flip = nullptr;  // not null: the copy turns s8 into u8
};

// Lines [begin, end) of a window over consecutive images, to dst + begin * (bytes of a line).
void copy_window(const ConvImages& images, const ConvWindow& window, int64_t begin, int64_t end,
                 uint8_t* dst);

}  // namespace tae::onednn
