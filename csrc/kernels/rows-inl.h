// The row kernels over vec.h's vectors, included once by rows.cpp and each
// rows__<isa>.cpp; see rows.h.
#pragma once

#include "kernels/rows.h"
#include "kernels/rows_run-inl.h"

namespace tae::kernels {
namespace {

template <typename T>
[[gnu::noinline]] void min_max_row(const T* src, int64_t count, float* min, float* max) noexcept {
  const MinMax m = min_max_run(src, count, vf(0.f));
  const bool finite = !m.has_nan && __builtin_isfinite(m.min) && __builtin_isfinite(m.max);
  *min = finite ? m.min : __builtin_nanf("");
  *max = finite ? m.max : __builtin_nanf("");
}

// Last bytes of a row: n < kGroup of them hold values, the rest up to `room` is 0.
TAE_VEC void store_row_end(uint8_t* dst, VBytes x, int64_t room) {
  if (room >= kGroup) {
    store_bytes(dst, x);
    std::memset(dst + kGroup, 0, static_cast<size_t>(room - kGroup));
  } else {
    store_bytes(dst, x, room);
  }
}

// Values of a row by `quantize`, zeros behind them. Their sum, or 0 where nobody needs it.
template <bool kSum, typename T, typename Quantize>
TAE_VEC int32_t quantize_values(const T* src, int64_t k, const Quantize& quantize, uint8_t* dst,
                                int64_t dst_stride) {
  VI sum = vi(0);
  VF x[4];
  int64_t i = 0;
  for (; i + kGroup <= k; i += kGroup) {
    load_group(src + i, x);
    const VBytes q = quantize(x);
    store_bytes(dst + i, q);
    if constexpr (kSum) sum = sum_bytes(sum, q);
  }
  if (i == k) {
    std::memset(dst + k, 0, static_cast<size_t>(dst_stride - k));
  } else {
    load_group(src + i, k - i, x);
    const VBytes q = keep_bytes(quantize(x), k - i);
    store_row_end(dst + i, q, dst_stride - i);
    if constexpr (kSum) sum = sum_bytes(sum, q);
  }
  return kSum ? reduce_add(sum) : 0;
}

template <typename T>
[[gnu::noinline]] int32_t quantize_row(const T* src, int64_t k, float inverse_scale, int32_t zero_point,
                                       int32_t lo, int32_t hi, uint8_t* dst, int64_t dst_stride) noexcept {
  return quantize_values<true>(src, k, RunQuantizer(inverse_scale, zero_point, lo, hi), dst, dst_stride);
}

// Neither a bound nor a sum: what rows of the whole u8 range need.
template <typename T>
[[gnu::noinline]] void quantize_full_row(const T* src, int64_t k, float inverse_scale, int32_t zero_point,
                                         uint8_t* dst, int64_t dst_stride) noexcept {
  const VF inverse = vf(inverse_scale);
  const VI zero = set1_16(zero_point);
  const auto quantize = [inverse, zero](const VF(&x)[4]) __attribute__((always_inline)) {
    return pack_u8(to_int(mul(x[0], inverse)), to_int(mul(x[1], inverse)), to_int(mul(x[2], inverse)),
                   to_int(mul(x[3], inverse)), zero);
  };
  quantize_values<false>(src, k, quantize, dst, dst_stride);
}

TAE_VEC int32_t copy_row(const void* source, int64_t k, VBytes flip, uint8_t* dst, int64_t dst_stride) {
  const uint8_t* src = static_cast<const uint8_t*>(source);
  VI sum = vi(0);
  int64_t i = 0;
  for (; i + kGroup <= k; i += kGroup) {
    const VBytes q = xor_bytes(load_bytes(src + i), flip);
    store_bytes(dst + i, q);
    sum = sum_bytes(sum, q);
  }
  if (i < dst_stride) {
    const VBytes q = keep_bytes(xor_bytes(load_bytes(src + i, k - i), flip), k - i);
    store_row_end(dst + i, q, dst_stride - i);
    sum = sum_bytes(sum, q);
  }
  return reduce_add(sum);
}

void min_max_f32(const float* src, int64_t count, float* min, float* max) {
  const DefaultFloatEnv env;
  min_max_row(src, count, min, max);
}

void min_max_bf16(const uint16_t* src, int64_t count, float* min, float* max) {
  const DefaultFloatEnv env;
  min_max_row(src, count, min, max);
}

int32_t quantize_f32(const float* src, int64_t k, float inverse_scale, int32_t zero_point, int32_t lo,
                     int32_t hi, uint8_t* dst, int64_t dst_stride) {
  const DefaultFloatEnv env;
  return quantize_row(src, k, inverse_scale, zero_point, lo, hi, dst, dst_stride);
}

int32_t quantize_bf16(const uint16_t* src, int64_t k, float inverse_scale, int32_t zero_point, int32_t lo,
                      int32_t hi, uint8_t* dst, int64_t dst_stride) {
  const DefaultFloatEnv env;
  return quantize_row(src, k, inverse_scale, zero_point, lo, hi, dst, dst_stride);
}

void quantize_full_f32(const float* src, int64_t k, float inverse_scale, int32_t zero_point, uint8_t* dst,
                       int64_t dst_stride) {
  const DefaultFloatEnv env;
  quantize_full_row(src, k, inverse_scale, zero_point, dst, dst_stride);
}

void quantize_full_bf16(const uint16_t* src, int64_t k, float inverse_scale, int32_t zero_point, uint8_t* dst,
                        int64_t dst_stride) {
  const DefaultFloatEnv env;
  quantize_full_row(src, k, inverse_scale, zero_point, dst, dst_stride);
}

int32_t copy_u8(const uint8_t* src, int64_t k, uint8_t* dst, int64_t dst_stride) {
  return copy_row(src, k, set1_8(0), dst, dst_stride);
}

int32_t shift_s8(const int8_t* src, int64_t k, uint8_t* dst, int64_t dst_stride) {
  return copy_row(src, k, set1_8(0x80), dst, dst_stride);
}

constexpr RowKernels kRowKernels = {min_max_f32,       min_max_bf16,       quantize_f32, quantize_bf16,
                                    quantize_full_f32, quantize_full_bf16, copy_u8,      shift_s8};

}  // namespace
}  // namespace tae::kernels
