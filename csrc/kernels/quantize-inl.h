// The elementwise kernels over vec.h's vectors, included once by quantize.cpp and
// each quantize__<isa>.cpp; see quantize.h. Everything is computed in the u8 domain:
// signed targets shift zero point and bounds by 128 and flip the top bit at the end.
#pragma once

#include "kernels/quantize.h"
#include "kernels/rows_run-inl.h"

namespace tae::kernels {
namespace {

TAE_VEC int32_t u8_shift(DType d) { return d == DType::qs8 ? 128 : 0; }

template <typename T>
[[gnu::noinline]] void quantize_run(const T* src, int64_t count, float inverse_scale, int32_t zero_point,
                                    const QuantRange& range, void* out) noexcept {
  uint8_t* dst = static_cast<uint8_t*>(out);
  const int32_t shift = u8_shift(range.dtype);
  const RunQuantizer quantize(inverse_scale, zero_point + shift, range.lo + shift, range.hi + shift);
  const VBytes flip = set1_8(shift);
  VF x[4];
  int64_t i = 0;
  for (; i + kGroup <= count; i += kGroup) {
    load_group(src + i, x);
    store_bytes(dst + i, xor_bytes(quantize(x), flip));
  }
  if (i < count) {
    load_group(src + i, count - i, x);
    store_bytes(dst + i, xor_bytes(quantize(x), flip), count - i);
  }
}

// As load_group for n elements; lanes at and after n get 0.
template <typename T>
TAE_VEC auto load_some(const T* p, int64_t n) {
  return n >= kLanes ? load(p, Full{}) : load(p, Part(n));
}

template <typename T>
[[gnu::noinline]] void quantize_channels(const T* src, int64_t rows, int64_t channels,
                                         const float* inverse_scale, const int32_t* zero_point,
                                         const QuantRange& range, void* out) noexcept {
  uint8_t* dst = static_cast<uint8_t*>(out);
  const int32_t shift = u8_shift(range.dtype);
  const VBytes flip = set1_8(shift), low = set1_8(range.lo + shift), high = set1_8(range.hi + shift);
  for (int64_t r = 0; r < rows; ++r, src += channels, dst += channels) {
    for (int64_t c = 0; c < channels; c += kGroup) {
      const int64_t n = channels - c < kGroup ? channels - c : kGroup;
      VF x[4];
      VI q[4];
      load_group(src + c, n, x);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const int64_t at = c + i * kLanes, left = n - i * kLanes;
        if (left <= 0) {
          q[i] = vi(0);
          continue;
        }
        const VI offset = zero_point != nullptr ? load_some(zero_point + at, left) : vi(0);
        // Bounded below too: adding a negative zero point to INT32_MIN would wrap.
        const VF v = max(mul(x[i], load_some(inverse_scale + at, left)), vf(-0x1p30f));
        q[i] = add(add(to_int(min(v, vf(0x1p30f))), offset), vi(shift));
      }
      const VBytes bytes = xor_bytes(clamp_u8(pack_u8(q[0], q[1], q[2], q[3], vi(0)), low, high), flip);
      store_group_bytes(dst + c, bytes, n);
    }
  }
}

template <typename Tail>
TAE_VEC void store_real(float* p, VF x, Tail t) {
  store(p, x, t);
}
template <typename Tail>
TAE_VEC void store_real(uint16_t* p, VF x, Tail t) {
  store_bf16(p, x, t);
}

template <bool kSigned, typename Tail>
TAE_VEC VI load_q(const void* src, int64_t i, Tail t) {
  if constexpr (kSigned) return load_s8(static_cast<const int8_t*>(src) + i, t);
  return load_u8(static_cast<const uint8_t*>(src) + i, t);
}

template <bool kSigned, typename T>
[[gnu::noinline]] void dequantize_run(const void* src, int64_t count, float scale, int32_t zero_point,
                                      T* dst) noexcept {
  const VF s = vf(scale);
  const VI zp = vi(zero_point);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    store_real(dst + i, mul(to_float(sub(load_q<kSigned>(src, i, Full{}), zp)), s), Full{});
  if (i < count) {
    const Part part(count - i);
    store_real(dst + i, mul(to_float(sub(load_q<kSigned>(src, i, part), zp)), s), part);
  }
}

template <bool kSigned, typename T, typename Tail>
TAE_VEC void dequantize_vector(const void* src, int64_t at, int64_t c, const float* scale,
                               const int32_t* zero_point, T* dst, Tail t) {
  const VI zp = zero_point != nullptr ? load(zero_point + c, t) : vi(0);
  const VI q = load_q<kSigned>(src, at, t);
  store_real(dst + at, mul(to_float(sub(q, zp)), load(scale + c, t)), t);
}

template <bool kSigned, typename T>
[[gnu::noinline]] void dequantize_rows(const void* src, int64_t rows, int64_t channels, const float* scale,
                                       const int32_t* zero_point, T* dst) noexcept {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = r * channels;
    int64_t c = 0;
    for (; c + kLanes <= channels; c += kLanes)
      dequantize_vector<kSigned>(src, row + c, c, scale, zero_point, dst, Full{});
    if (c < channels) dequantize_vector<kSigned>(src, row + c, c, scale, zero_point, dst, Part(channels - c));
  }
}

// 0 is not included: vectors overlap instead of a padded tail.
template <typename T>
[[gnu::noinline]] void min_max_all(const T* src, int64_t count, float* min, float* max) noexcept {
  MinMax m;
  if (count >= kLanes) {
    const int64_t whole = count / kLanes * kLanes;
    m = min_max_run(src, whole, load_real(src, Full{}));
    const MinMax last = min_max_run(src + count - kLanes, kLanes, load_real(src + count - kLanes, Full{}));
    if (last.min < m.min) m.min = last.min;
    if (last.max > m.max) m.max = last.max;
    m.has_nan = m.has_nan || last.has_nan;
  } else {
    T copy[kLanes];
    for (int i = 0; i < kLanes; ++i) copy[i] = src[i < count ? i : 0];
    m = min_max_run(copy, kLanes, load_real(copy, Full{}));
  }
  // Adding 0 makes -0 a +0: which of the two the lanes keep depends on their number.
  *min = m.has_nan ? __builtin_nanf("") : m.min + 0.f;
  *max = m.has_nan ? __builtin_nanf("") : m.max + 0.f;
}

template <typename T>
void quantize_entry(const T* src, int64_t count, float inverse_scale, int32_t zero_point,
                    const QuantRange& range, void* dst) {
  const DefaultFloatEnv env;
  quantize_run(src, count, inverse_scale, zero_point, range, dst);
}

template <typename T>
void dequantize_entry(const void* src, DType src_dtype, int64_t count, float scale, int32_t zero_point,
                      T* dst) {
  const DefaultFloatEnv env;
  if (src_dtype == DType::qs8) {
    dequantize_run<true>(src, count, scale, zero_point, dst);
  } else {
    dequantize_run<false>(src, count, scale, zero_point, dst);
  }
}

template <typename T>
void quantize_channels_entry(const T* src, int64_t rows, int64_t channels, const float* inverse_scale,
                             const int32_t* zero_point, const QuantRange& range, void* dst) {
  const DefaultFloatEnv env;
  quantize_channels(src, rows, channels, inverse_scale, zero_point, range, dst);
}

template <typename T>
void dequantize_channels_entry(const void* src, DType src_dtype, int64_t rows, int64_t channels,
                               const float* scale, const int32_t* zero_point, T* dst) {
  const DefaultFloatEnv env;
  if (src_dtype == DType::qs8) {
    dequantize_rows<true>(src, rows, channels, scale, zero_point, dst);
  } else {
    dequantize_rows<false>(src, rows, channels, scale, zero_point, dst);
  }
}

template <typename T>
void min_max_entry(const T* src, int64_t count, float* min, float* max) {
  const DefaultFloatEnv env;
  min_max_all(src, count, min, max);
}

constexpr QuantizeKernels kQuantizeKernels = {
    quantize_entry<float>,
    quantize_entry<uint16_t>,
    dequantize_entry<float>,
    dequantize_entry<uint16_t>,
    quantize_channels_entry<float>,
    quantize_channels_entry<uint16_t>,
    dequantize_channels_entry<float>,
    dequantize_channels_entry<uint16_t>,
    min_max_entry<float>,
    min_max_entry<uint16_t>,
};

}  // namespace
}  // namespace tae::kernels
