// One vector type per translation unit, chosen by the flags it is compiled with:
// 16 lanes (AVX512), 8 (AVX2) or 4 (SSE2, the baseline). Only what rows, epilogue
// and quantize need. Everything has internal linkage, so that no copy compiled for
// one level can be linked into code that runs on another.
//
// All operations are plain IEEE ones with the same result on every level.
//   max(a, b) is a > b ? a : b, min(a, b) is a < b ? a : b: b when either is NaN.
//   to_int rounds as MXCSR says, INT32_MIN for NaN and out of range.
// A memory operation takes Full (kLanes elements) or Part (the first n lanes, other
// lanes 0 on load; nothing outside [0, n) is touched).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include "kernels/vec_avx512.h"
#elif defined(__AVX2__)
#include "kernels/vec_avx2.h"
#else
#include "kernels/vec_sse2.h"
#endif

namespace tae::kernels {
namespace {

[[gnu::always_inline]] inline VF vf(float x) { return set1(x); }
[[gnu::always_inline]] inline VI vi(int32_t x) { return set1(x); }

#if !defined(__AVX512F__)
// The sum of all 32-bit lanes, exact; AVX512 has instructions for it.
[[gnu::always_inline]] inline int64_t reduce_sum32(VI x) {
  int32_t lanes[kLanes];
  std::memcpy(lanes, &x, sizeof lanes);
  int64_t sum = 0;
  for (int32_t v : lanes) sum += v;
  return sum;
}
#endif

// x in a register: GCC 12 loads a value again for every operand that may be in memory.
template <typename V>
[[gnu::always_inline]] inline V held(V x) {
#if defined(__AVX512F__)
  __asm__("" : "+v"(x));
#else
  __asm__("" : "+x"(x));
#endif
  return x;
}

// bf16 is the upper half of an f32.
template <typename Tail>
[[gnu::always_inline]] inline VF load_bf16(const uint16_t* p, Tail t) {
  return as_float(shift_left<16>(load_u16(p, t)));
}

// Round to nearest even; a NaN stays one and becomes quiet.
template <typename Tail>
[[gnu::always_inline]] inline void store_bf16(uint16_t* p, VF x, Tail t) {
  const VI bits = as_int(x);
  const VI high = shift_right<16>(bits);
  const VI bias = add(and_bits(high, vi(1)), vi(0x7fff));
  const VI rounded = shift_right<16>(add(bits, bias));
  const VI quiet = or_bits(high, vi(0x40));
  store_low16(p, select(is_nan(x), quiet, rounded), t);
}

}  // namespace
}  // namespace tae::kernels
