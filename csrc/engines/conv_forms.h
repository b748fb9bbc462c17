// Other convolutions with the same result, for engines that are better at them.
#pragma once

#include <cstdint>
#include <vector>

#include "engines/conv.h"

namespace tae {

// A transposed convolution without stride is a convolution with the taps in reverse order.
// The padding behind the input is then what the output's size asks for. `weight` keeps the
// rows that the result points to; any other problem is returned as it is.
ConvProblem forward_form(const ConvProblem& p, std::vector<int8_t>* weight);

}  // namespace tae
