// Depthwise convolution of one output pixel: 64 channels at a time, any taps.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"

namespace tae::kernels {

constexpr int64_t kDepthwiseChannels = 64;

struct DepthwisePixel {
  const uint8_t* const* taps = nullptr;  // where each tap's channels begin
  int64_t num_taps = 0;                  // a multiple of tap_multiple
  int64_t channels = 0;                  // from the pointers on; nothing behind them is read
  uint8_t flip = 0;                      // xor of every input byte: 0x80 brings qs8 into the u8 domain
  const int8_t* weight = nullptr;        // packed
  int32_t* acc = nullptr;                // [channels rounded up to 64]: sum over taps of x * w
};

struct DepthwiseKernels {
  // Taps come in groups of this many; those that fill the last group have weights of 0 and
  // read from anywhere.
  int64_t tap_multiple = 1;
  // weight [channels][taps] to [channels rounded up to 64][taps rounded up], in the order
  // of `run`; `packed` is zero before.
  void (*pack)(const int8_t* weight, int64_t channels, int64_t taps, int8_t* packed) = nullptr;
  void (*run)(const DepthwisePixel& p) = nullptr;
};

// The best level <= isa that has one (portable, avx2, avx512).
const DepthwiseKernels& depthwise_kernels(Isa isa);

}  // namespace tae::kernels
