// Where the matrices of a batch begin: matmul and both attentions.
#pragma once

#include "core/checks.h"

namespace tae {

// First element of each of the `count` >= 1 matrices of a batch of these leading sizes, to which
// the tensor's broadcast; in elements.
std::vector<int64_t> matrix_offsets(const Arg& arg, const at::Tensor& t, at::IntArrayRef batch,
                                    int64_t count);

}  // namespace tae
