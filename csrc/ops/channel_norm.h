// Tensors whose channels are normalized: their memory, and the passes over it.
#pragma once

#include "kernels/lookup.h"
#include "ops/norm_common.h"

namespace tae {

// input as [samples][channels][inner], or [samples][inner][channels] when channels are last.
struct ChannelImages {
  at::Tensor input, output;
  bool channels_last = false;
  int64_t samples = 1, channels = 1, inner = 1;
  const uint8_t* src = nullptr;
  uint8_t* dst = nullptr;
};

// The output has input's memory order where that is contiguous or channels last, else it is contiguous.
// src is null when it is empty.
ChannelImages channel_images(const char* op, const at::Tensor& input, at::ScalarType dtype);

// What all tasks of a call share.
struct ChannelWork {
  const kernels::NormKernels& k;
  const ChannelImages& i;
  kernels::Operand operand;
  kernels::Finish finish;
  kernels::LookupBytes look_up;  // null: not faster than the computation

  int64_t width() const { return static_cast<int64_t>(size_of(operand.dtype)); }
  int64_t step() const { return static_cast<int64_t>(size_of(finish.dtype)); }
  kernels::Operand part_at(int64_t at) const {
    kernels::Operand part = operand;
    part.data = i.src + at * width();
    return part;
  }
};

// *factor: steps of the output in 1, where a and b give results in steps.
ChannelWork channel_work(const ChannelImages& i, const kernels::Operand& operand, const OutputFinish& out,
                         double* factor);

// Sums of every channel of every sample.
void sum_channels(const ChannelWork& w, kernels::ByteSums* sums);

// r = fma(f32(q - zero_point), a[n, c], b[n, c]); `shared` when all samples have the same.
void apply_channels(const Arg& arg, const ChannelWork& w, const float* a, const float* b, bool shared);

// Pieces that one thread normalizes while they are in its caches: samples, or groups where
// their channels lie in one piece each.
int64_t channel_pieces(const ChannelImages& i, const kernels::GroupNumbers& g);
void normalize_pieces(const Arg& arg, const ChannelWork& w, const kernels::GroupNumbers& g);

}  // namespace tae
