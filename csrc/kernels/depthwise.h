// Depthwise convolution of one output pixel: 64 channels at a time, any taps.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"

namespace tae::kernels {

constexpr int64_t kDepthwiseChannels = 64;

struct DepthwisePixel {
  const uint8_t* const* taps = nullptr;  // where each tap's channels begin
  int64_t num_taps = 0;
  int64_t channels = 0;            // from the pointers on; nothing behind them is read
  uint8_t flip = 0;                // xor of every input byte: 0x80 brings qs8 into the u8 domain
  const int8_t* weight = nullptr;  // [ceil(channels / 64)][num_taps][64]
  int32_t* acc = nullptr;          // [channels rounded up to 64]: sum over taps of x * w
};

using DepthwiseFn = void (*)(const DepthwisePixel& p);

// The best level <= isa that has one (portable, avx2, avx512).
DepthwiseFn depthwise(Isa isa);

}  // namespace tae::kernels
