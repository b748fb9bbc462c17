// Runs of elements in groups of 4 vectors: quantization to bytes and min/max, shared
// by rows and quantize. Included by ISA files through rows-inl.h, quantize-inl.h.
#pragma once

#include "kernels/vec.h"
#include "kernels/vec_float_env.h"

namespace tae::kernels {
namespace {

constexpr int kGroup = 4 * kLanes;  // elements, and bytes after packing

// The first n <= kGroup bytes; a whole group without a mask.
TAE_VEC VBytes load_group_bytes(const void* p, int64_t n) {
  return n == kGroup ? load_bytes(p) : load_bytes(p, n);
}
TAE_VEC void store_group_bytes(void* p, VBytes x, int64_t n) {
  if (n == kGroup) {
    store_bytes(p, x);
  } else {
    store_bytes(p, x, n);
  }
}

// 4 vectors as f32 from f32 or bf16; lanes at and after n are 0 (n <= kGroup).
template <typename Tail>
TAE_VEC VF load_real(const float* p, Tail t) {
  return load(p, t);
}
template <typename Tail>
TAE_VEC VF load_real(const uint16_t* p, Tail t) {
  return load_bf16(p, t);
}

template <typename T>
TAE_VEC void load_group(const T* p, VF (&x)[4]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) x[i] = load_real(p + i * kLanes, Full{});
}
template <typename T>
TAE_VEC void load_group(const T* p, int64_t n, VF (&x)[4]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const int64_t left = n - i * kLanes;
    x[i] = left >= kLanes ? load_real(p + i * kLanes, Full{})
           : left > 0     ? load_real(p + i * kLanes, Part(left))
                          : vf(0.f);
  }
}

// Calls body(i, tail) for up to 4 vectors of a group of n <= kGroup elements.
template <typename Body>
TAE_VEC void for_group(int64_t n, const Body& body) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const int64_t left = n - j * kLanes;
    if (left >= kLanes) {
      body(j, Full{});
    } else if (left > 0) {
      body(j, Part(left));
    }
  }
}

// round_half_even(x * inverse_scale), NaN and everything too small INT32_MIN. The
// upper bound keeps large values from becoming INT32_MIN as well.
TAE_VEC VI round_scaled(VF x, VF inverse_scale) { return to_int(min(vf(0x1p30f), mul(x, inverse_scale))); }

// Constants of a run in the u8 domain: `flip` 0x80 takes bytes back to signed.
struct RunQuantizer {
  RunQuantizer(float inverse, int32_t zero_point, int32_t lo, int32_t hi)
      : inverse_scale(vf(inverse)), zero_point(set1_16(zero_point)), low(set1_8(lo)), high(set1_8(hi)) {}

  TAE_VEC VBytes operator()(const VF (&x)[4]) const {
    const VBytes q =
        pack_u8(round_scaled(x[0], inverse_scale), round_scaled(x[1], inverse_scale),
                round_scaled(x[2], inverse_scale), round_scaled(x[3], inverse_scale), zero_point);
    return clamp_u8(q, low, high);
  }

  VF inverse_scale;
  VI zero_point;  // int16 lanes
  VBytes low, high;
};

struct MinMax {
  float min, max;
  bool has_nan;
};

// Over count >= 0 values and `start`. Lanes that a tail leaves at 0 are counted, so
// start is 0 or the caller passes whole vectors only.
template <typename T>
TAE_VEC MinMax min_max_run(const T* src, int64_t count, VF start) {
  VF low[4] = {start, start, start, start}, high[4] = {start, start, start, start};
  VMask nan = no_lane();
  const auto take = [&](const VF(&x)[4]) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      low[j] = min(x[j], low[j]);  // a NaN in x is passed over here and seen below
      high[j] = max(x[j], high[j]);
    }
    nan = mask_or(nan, mask_or(unordered(x[0], x[1]), unordered(x[2], x[3])));
  };
  int64_t i = 0;
  VF x[4];
  for (; i + kGroup <= count; i += kGroup) {
    load_group(src + i, x);
    take(x);
  }
  for (; i + kLanes <= count; i += kLanes) {
    x[0] = x[1] = x[2] = x[3] = load_real(src + i, Full{});
    take(x);
  }
  if (i < count) {
    x[0] = x[1] = x[2] = x[3] = load_real(src + i, Part(count - i));
    take(x);
  }
  const VF low_all = min(min(low[0], low[1]), min(low[2], low[3]));
  const VF high_all = max(max(high[0], high[1]), max(high[2], high[3]));
  return {reduce_min(low_all), reduce_max(high_all), any(nan)};
}

}  // namespace
}  // namespace tae::kernels
