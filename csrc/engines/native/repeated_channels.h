// Depthwise convolution with several output channels for each input channel: the input with each
// byte repeated, as many lines at a time as fit into kMostCopiedBytes.
#pragma once

#include <functional>

#include "engines/conv.h"

namespace tae::native {

// Lines of an input or output, along its width, counted over [batch][d][h].
struct Lines {
  int64_t begin, end;
};

// Writes some lines of the output from a whole input or one of which only the lines that these
// read are in memory.
using RunLines = std::function<void(const ConvArgs& args, Lines lines)>;

// Runs all lines of the output, for `multiplier` output channels of each input channel.
// `g.in_channels` are those of the repeated input.
void with_repeated_channels(const ConvGeometry& g, const ConvArgs& args, int64_t multiplier,
                            const RunLines& run);

}  // namespace tae::native
