// Codes of one row as vectors: loads that stay inside the row, products with the scale,
// elements back in order. Included by embedding-inl.h and embedding_sums-inl.h.
#pragma once

#include "kernels/embedding.h"
#include "kernels/half.h"
#include "kernels/vec.h"

namespace tae::kernels {
namespace {

// A vector of kLanes packed bytes holds kPhases<bits> vectors of elements: phase p has
// the elements kPhases * lane + p.
template <int kBits>
constexpr int kPhases = 8 / kBits;

// Into the second-level cache: it takes far more outstanding lines than the first level,
// and the step from there is short enough for out-of-order execution.
TAE_VEC void prefetch_line(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1); }

struct ScaleBias {
  float scale, bias;
};

template <int kBits>
TAE_VEC ScaleBias load_scale_bias(const uint8_t* tail) {
  ScaleBias result;
  if constexpr (kBits == 8) {
    std::memcpy(&result.scale, tail, sizeof result.scale);
    std::memcpy(&result.bias, tail + sizeof result.scale, sizeof result.bias);
  } else {
#if defined(__F16C__)
    int32_t word;
    std::memcpy(&word, tail, sizeof word);
    const __m128 both = _mm_cvtph_ps(_mm_cvtsi32_si128(word));
    result.scale = _mm_cvtss_f32(both);
    result.bias = _mm_cvtss_f32(_mm_movehdup_ps(both));
#else
    uint16_t halves[2];
    std::memcpy(halves, tail, sizeof halves);
    result.scale = half_to_float(halves[0]);
    result.bias = half_to_float(halves[1]);
#endif
  }
  return result;
}

// The last `lanes` <= kLanes bytes of codes, other lanes undefined but finite. Reads no
// byte behind the row's scale and bias.
template <int kBits>
TAE_VEC VI load_last_codes(const uint8_t* p, int64_t lanes) {
  constexpr int64_t kTail = embedding_tail_bytes(kBits);
  if (lanes + kTail >= kLanes) return load_u8(p, Full{});
#if defined(__AVX512F__)
  return load_u8(p, Part(lanes));
#elif defined(__AVX2__)  // lanes < 4, and a tail of 4 bytes
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  return _mm256_cvtepu8_epi32(_mm_cvtsi32_si128(word));
#else
  return vi(0);  // never: the tail has kLanes bytes or more
#endif
}

// Codes of kLanes bytes as floats, a vector for each phase.
template <int kBits>
struct Codes {
  // kLanes bytes at p.
  TAE_VEC static void full(const uint8_t* p, VF (&codes)[kPhases<kBits>]) {
    split(load_u8(p, Full{}), codes);
  }
  // The last `lanes` bytes of the row.
  TAE_VEC static void last(const uint8_t* p, int64_t lanes, VF (&codes)[kPhases<kBits>]) {
    split(load_last_codes<kBits>(p, lanes), codes);
  }

 private:
  TAE_VEC static void split(VI bytes, VF (&codes)[kPhases<kBits>]) {
    codes[0] = take<0>(bytes);
    if constexpr (kBits <= 4) codes[1] = take<kBits>(bytes);
    if constexpr (kBits == 2) {
      codes[2] = take<4>(bytes);
      codes[3] = take<6>(bytes);
    }
  }

  template <int kShift>
  TAE_VEC static VF take(VI bytes) {
    if constexpr (kBits == 8) {
      return to_float(bytes);
    } else {
      VI shifted = bytes;
      if constexpr (kShift > 0) shifted = shift_right<kShift>(bytes);
#if defined(__AVX512F__)
      // One lookup for a mask and a conversion: vpermps looks at 4 bits of a lane.
      if constexpr (kBits == 4)
        return _mm512_permutexvar_ps(shifted,
                                     _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
      return _mm512_permutexvar_ps(shifted, _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3));
#else
      if constexpr (kShift + kBits < 8) shifted = and_bits(shifted, vi((1 << kBits) - 1));
      return to_float(shifted);
#endif
    }
  }
};

// a0 b0 a1 b1 ...: the lower half of the lanes, then the upper half.
TAE_VEC void interleave(VF a, VF b, VF* low, VF* high) {
#if defined(__AVX512F__)
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  *low = _mm512_permutex2var_ps(a, first, b);
  *high = _mm512_permutex2var_ps(a, second, b);
#elif defined(__AVX2__)
  const __m256 even = _mm256_unpacklo_ps(a, b), odd = _mm256_unpackhi_ps(a, b);
  *low = _mm256_permute2f128_ps(even, odd, 0x20);
  *high = _mm256_permute2f128_ps(even, odd, 0x31);
#else
  *low = _mm_unpacklo_ps(a, b);
  *high = _mm_unpackhi_ps(a, b);
#endif
}

// Phases to elements in order.
TAE_VEC void in_order(VF (&)[1]) {}
TAE_VEC void in_order(VF (&v)[2]) {
  const VF a = v[0], b = v[1];
  interleave(a, b, &v[0], &v[1]);
}
TAE_VEC void in_order(VF (&v)[4]) {
  VF even[2], odd[2];
  interleave(v[0], v[2], &even[0], &even[1]);
  interleave(v[1], v[3], &odd[0], &odd[1]);
  interleave(even[0], odd[0], &v[0], &v[1]);
  interleave(even[1], odd[1], &v[2], &v[3]);
}

TAE_VEC void store_real(float* p, VF x, int64_t n) {
  if (n >= kLanes) {
    store(p, x, Full{});
  } else if (n > 0) {
    store(p, x, Part(n));
  }
}
TAE_VEC void store_real(uint16_t* p, VF x, int64_t n) {
  if (n >= kLanes) {
    store_bf16(p, x, Full{});
  } else if (n > 0) {
    store_bf16(p, x, Part(n));
  }
}

// The first n elements of kPhases vectors in order.
template <int kPhasesOfGroup, typename T>
TAE_VEC void store_elements(T* dst, VF (&v)[kPhasesOfGroup], int64_t n) {
  in_order(v);
#pragma GCC unroll 4
  for (int p = 0; p < kPhasesOfGroup; ++p) store_real(dst + p * kLanes, v[p], n - p * kLanes);
}

}  // namespace
}  // namespace tae::kernels
