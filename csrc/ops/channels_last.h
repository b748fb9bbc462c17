// Tensors [N, C, *S] whose memory is [N, *S, C], as convolution and pooling read and write.
#pragma once

#include "core/checks.h"

namespace tae {

using Sizes = c10::SmallVector<int64_t, 6>;

// Strides of [N, C, *S] in that memory order.
Sizes channels_last_strides(at::IntArrayRef sizes);

// Whether the elements lie as these strides say; that of a dimension of size 1 says nothing.
bool lies_as(const at::Tensor& t, at::IntArrayRef strides);

at::Tensor empty_strided(const Arg& arg, at::IntArrayRef sizes, at::IntArrayRef strides,
                         at::ScalarType dtype);

// A copy whose elements lie as these strides say; it is torch's.
at::Tensor copy_as(const Arg& arg, const at::Tensor& t, at::IntArrayRef strides);

// The tensor itself when its memory is channels last, else a copy that is.
at::Tensor channels_last(const Arg& arg, const at::Tensor& t);

}  // namespace tae
