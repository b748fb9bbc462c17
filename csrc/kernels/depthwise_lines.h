// Depthwise convolution of a piece of an output line with VPDPBUSD, in two steps:
//
// - expand: the bytes of 4 taps of one channel side by side. Where a tap repeats another
//   one, one or more pixels away, both read the same bytes: a 3x3 kernel expands each input
//   column (3 lines) once and reads it in 3 outputs.
// - multiply: dot products of 4 bytes, and the bytes of the output from the sums while they
//   are in registers.
//
// Channels and pixels are one run of values, of which 64 are a block: the channels of a pixel
// need not fill vectors. Parameters are repeated behind their period, so that a block
// may begin at any channel.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "kernels/byte_rule.h"

namespace tae::kernels {

constexpr int64_t kLineBlock = 64;
constexpr int kLineTaps = 4;

struct TapLines {
  const uint8_t* source[kLineTaps] = {};  // of the first pixel; the first `count` are read
  int64_t step[kLineTaps] = {};           // bytes from one pixel to the next
  int count = 0;
  int64_t pixels = 0;
  int64_t channels = 0;         // of a pixel; nothing behind them is read
  int64_t period = 0;           // values of an expanded pixel, at least channels
  uint8_t flip = 0;             // xor of every input byte
  uint8_t* expanded = nullptr;  // [pixels][period][4]; 4 * 63 bytes behind are written too
  // Not null: pixels lie side by side and go to `expanded` and here in turn, as a stride of 2
  // reads them; channels are a multiple of 16 and the period, and nothing is written behind.
  uint8_t* alternate = nullptr;
};

struct LineProducts {
  const uint8_t* expanded = nullptr;
  const int64_t* offset = nullptr;  // [groups]: bytes from `expanded` to the first pixel's taps
  int64_t groups = 0;
  const int8_t* weight = nullptr;  // [groups][weight_stride]: 4 taps a channel
  int64_t weight_stride = 0;
  // A pixel is `period` values; without a multiple of 64, all of them are channels and
  // pixels lie side by side in the output. Else the first `channels` are.
  int64_t period = 0;
  int64_t channels = 0;
  int64_t pixels = 0;
  // Of each channel; from the period on again up to 63 more, as the weights.
  const int32_t* start = nullptr;  // what the sum begins with
  const float* scale = nullptr;
  const float* bias = nullptr;
  ByteRule rule;
  uint8_t* output = nullptr;
  int64_t output_stride = 0;  // from one pixel to the next
  int32_t* sums = nullptr;    // if not null, [pixels][period] and up to 63 more, and no output
};

struct LineKernels {
  void (*expand)(const TapLines& lines) = nullptr;
  void (*multiply)(const LineProducts& products) = nullptr;
};

// Null below avx512_vnni.
const LineKernels* line_kernels(Isa isa);

}  // namespace tae::kernels
