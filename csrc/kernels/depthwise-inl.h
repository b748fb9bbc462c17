// The depthwise kernel as fixed loops that the compiler turns into the vectors of the
// including file's level. A product of u8 and s8 fits 16 bits: exact.
#pragma once

#include <cstring>

#include "kernels/depthwise.h"

namespace tae::kernels {
namespace {

// GCC's vector types: 16 lanes whatever the level, split by the compiler as needed.
typedef uint8_t Bytes16 __attribute__((vector_size(16)));
typedef int8_t SignedBytes16 __attribute__((vector_size(16)));
typedef int16_t Words16 __attribute__((vector_size(32)));
typedef int32_t Ints16 __attribute__((vector_size(64)));

[[gnu::always_inline]] inline void add_tap(Ints16 (&sum)[4], const uint8_t* x, const int8_t* w,
                                           uint8_t flip) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    Bytes16 a;
    SignedBytes16 b;
    std::memcpy(&a, x + 16 * i, 16);
    std::memcpy(&b, w + 16 * i, 16);
    a ^= flip;
    const Words16 product = __builtin_convertvector(a, Words16) * __builtin_convertvector(b, Words16);
    sum[i] += __builtin_convertvector(product, Ints16);
  }
}

void run_depthwise(const DepthwisePixel& p) {
  const int8_t* w = p.weight;
  for (int64_t c = 0; c < p.channels; c += kDepthwiseChannels) {
    const int64_t left = p.channels - c;
    Ints16 sum[4] = {};
    for (int64_t t = 0; t < p.num_taps; ++t, w += kDepthwiseChannels) {
      if (left >= kDepthwiseChannels) {
        add_tap(sum, p.taps[t] + c, w, p.flip);
      } else {
        uint8_t part[kDepthwiseChannels] = {};
        std::memcpy(part, p.taps[t] + c, static_cast<size_t>(left));
        add_tap(sum, part, w, p.flip);
      }
    }
    std::memcpy(p.acc + c, sum, sizeof(sum));
  }
}

// [strip][tap][64]
void pack_depthwise(const int8_t* weight, int64_t channels, int64_t taps, int8_t* packed) {
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t t = 0; t < taps; ++t)
      packed[(c / kDepthwiseChannels * taps + t) * kDepthwiseChannels + c % kDepthwiseChannels] =
          weight[c * taps + t];
}

constexpr DepthwiseKernels kDepthwiseKernels = {1, pack_depthwise, run_depthwise};

}  // namespace
}  // namespace tae::kernels
