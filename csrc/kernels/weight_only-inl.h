// The steps of weight_only.h over vec.h's vectors, included once by weight_only.cpp and
// each weight_only__<isa>.cpp.
#pragma once

#include "kernels/rows_run-inl.h"
#include "kernels/weight_only.h"

namespace tae::kernels {
namespace {

constexpr int64_t kColumns = 64;

template <typename T, typename Tail>
TAE_VEC void to_planes_part(const T* src, const PlaneRow& row, int64_t i, Tail tail) {
  const float limit = static_cast<float>(plane_limit(row.planes));
  VF x = mul(load_real(src + i, tail), vf(row.inverse_scale));
  x = max(min(x, vf(limit)), vf(-limit));
  const VI u = xor_bytes(add(to_int(x), vi(plane_offset(row.planes))), vi(0x101 * row.flip));
  if (row.planes == 1) {
    store_low8(row.high + i, u, tail);
  } else {
    store_low8(row.high + i, shift_right<8>(u), tail);
    store_low8(row.low + i, u, tail);
  }
}

template <typename T>
[[gnu::noinline]] void to_planes(const T* src, const PlaneRow& row) noexcept {
  int64_t i = 0;
  for (; i + kLanes <= row.k; i += kLanes) to_planes_part(src, row, i, Full{});
  if (i < row.k) to_planes_part(src, row, i, Part(row.k - i));
  std::memset(row.high + row.k, row.flip, static_cast<size_t>(row.k_pad - row.k));
  if (row.planes == 2) std::memset(row.low + row.k, row.flip, static_cast<size_t>(row.k_pad - row.k));
}

void to_planes_f32(const float* src, const PlaneRow& row) {
  const DefaultFloatEnv env;
  to_planes(src, row);
}

void to_planes_bf16(const uint16_t* src, const PlaneRow& row) {
  const DefaultFloatEnv env;
  to_planes(src, row);
}

// Nibbles 0..15 to bytes -8..7: no byte carries into the next.
TAE_VEC VBytes centered(VI nibbles) {
  return xor_bytes(add(nibbles, vi(0x78787878)), vi(static_cast<int32_t>(0x80808080u)));
}

void unpack4(const uint8_t* packed, int64_t steps, int8_t* out) {
  const VI mask = vi(0x0f0f0f0f);
  for (int64_t s = 0; s < steps; ++s) {
    for (int64_t i = 0; i < kStep4; i += 4 * kLanes) {
      const VI x = load_bytes(packed + s * kStep4 + i);
      store_bytes(out + 2 * s * kStep4 + i, centered(and_bits(x, mask)));
      store_bytes(out + (2 * s + 1) * kStep4 + i, centered(and_bits(shift_right<4>(x), mask)));
    }
  }
}

[[gnu::noinline]] void combine8_body(int planes, const int32_t* high, const int32_t* low,
                                     const int32_t* column_sum, float* v) noexcept {
  for (int64_t j = 0; j < kColumns; j += kLanes) {
    const VI shift = shift_left<7>(load(column_sum + j, Full{}));
    VF x = to_float(sub(load(high + j, Full{}), shift));
    if (planes == 2) x = add(mul(x, vf(256.f)), to_float(sub(load(low + j, Full{}), shift)));
    store(v + j, x, Full{});
  }
}

void combine8(int planes, const int32_t* high, const int32_t* low, const int32_t* column_sum, float* v) {
  const DefaultFloatEnv env;
  combine8_body(planes, high, low, column_sum, v);
}

[[gnu::noinline]] void accumulate4_body(int planes, const int32_t* high, const int32_t* low,
                                        const int32_t* column_sum, const float* scale, float* v) noexcept {
  for (int64_t j = 0; j < kColumns; j += kLanes) {
    VI sum = load(high + j, Full{});
    VI shift = shift_left<7>(load(column_sum + j, Full{}));
    if (planes == 2) {
      sum = add(shift_left<8>(sum), load(low + j, Full{}));
      shift = add(shift_left<8>(shift), shift);
    }
    const VF term = mul(to_float(sub(sum, shift)), load(scale + j, Full{}));
    store(v + j, add(load(v + j, Full{}), term), Full{});
  }
}

void accumulate4(int planes, const int32_t* high, const int32_t* low, const int32_t* column_sum,
                 const float* scale, float* v) {
  const DefaultFloatEnv env;
  accumulate4_body(planes, high, low, column_sum, scale, v);
}

TAE_VEC void store_real(float* p, VF x, Full t) { store(p, x, t); }
TAE_VEC void store_real(float* p, VF x, Part t) { store(p, x, t); }
TAE_VEC void store_real(uint16_t* p, VF x, Full t) { store_bf16(p, x, t); }
TAE_VEC void store_real(uint16_t* p, VF x, Part t) { store_bf16(p, x, t); }

template <typename T, typename Tail>
TAE_VEC void finish_part(const float* v, float row_scale, const float* weight_scale, const float* bias,
                         T* out, Tail tail) {
  VF scale = vf(row_scale);
  if (weight_scale != nullptr) scale = mul(scale, load(weight_scale, tail));
  VF y = mul(load(v, tail), scale);
  if (bias != nullptr) y = add(y, load(bias, tail));
  store_real(out, y, tail);
}

template <typename T>
[[gnu::noinline]] void finish(const float* v, float row_scale, const float* weight_scale, const float* bias,
                              int64_t count, T* out) noexcept {
  for (int64_t j = 0; j < count; j += kLanes) {
    const float* scale = weight_scale == nullptr ? nullptr : weight_scale + j;
    const float* add = bias == nullptr ? nullptr : bias + j;
    if (count - j >= kLanes)
      finish_part(v + j, row_scale, scale, add, out + j, Full{});
    else
      finish_part(v + j, row_scale, scale, add, out + j, Part(count - j));
  }
}

void finish_f32(const float* v, float row_scale, const float* weight_scale, const float* bias, int64_t count,
                float* out) {
  const DefaultFloatEnv env;
  finish(v, row_scale, weight_scale, bias, count, out);
}

void finish_bf16(const float* v, float row_scale, const float* weight_scale, const float* bias, int64_t count,
                 uint16_t* out) {
  const DefaultFloatEnv env;
  finish(v, row_scale, weight_scale, bias, count, out);
}

}  // namespace
}  // namespace tae::kernels
