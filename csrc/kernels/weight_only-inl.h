// The steps of weight_only.h over vec.h's vectors, included once by weight_only.cpp and
// each weight_only__<isa>.cpp.
#pragma once

#include "kernels/rows_run-inl.h"
#include "kernels/weight_only.h"

namespace tae::kernels {
namespace {

constexpr int64_t kColumns = 64;

// Calls body(x, i, n) for runs of n <= kGroup values, from element i on, as four vectors.
template <typename T, typename Body>
TAE_VEC void for_runs(const T* src, int64_t count, const Body& body) {
  VF x[4];
  int64_t i = 0;
  for (; i + kGroup <= count; i += kGroup) {
    load_group(src + i, x);
    body(x, i, int64_t{kGroup});
  }
  if (i < count) {
    load_group(src + i, count - i, x);
    body(x, i, count - i);
  }
}

// max|x|, NaN if a value is NaN or infinite.
template <typename T>
TAE_VEC float largest_of(const T* src, int64_t count) {
  VF largest = vf(0.f);
  VMask nan = no_lane();
  for_runs(src, count, [&](const VF(&x)[4], int64_t, int64_t) __attribute__((always_inline)) {
    const auto magnitude = [](VF v) __attribute__((always_inline)) {
      return as_float(and_bits(as_int(v), vi(0x7fffffff)));
    };
    const VF a = max(magnitude(x[0]), magnitude(x[1])), b = max(magnitude(x[2]), magnitude(x[3]));
    largest = max(max(a, b), largest);
    nan = mask_or(nan, mask_or(unordered(x[0], x[1]), unordered(x[2], x[3])));
  });
  const float a = reduce_max(largest);
  return any(nan) || !__builtin_isfinite(a) ? __builtin_nanf("") : a;
}

TAE_VEC float step_of(float largest, float limit) {
  const float step = largest / limit;
  return step > __FLT_MIN__ ? step : __FLT_MIN__;
}

// The bytes of a plane, as u8 with 128 added, on their way to memory, and their sums.
struct PlaneBytes {
  VI sum = vi(0), squares = vi(0);

  TAE_VEC void store(uint8_t* p, VI a, VI b, VI c, VI d, uint8_t flip, int64_t n) {
    const VBytes u = keep_bytes(pack_u8(a, b, c, d, set1_16(128)), n);
    store_group_bytes(p, xor_bytes(u, set1_8(0x80 ^ flip)), n);
    sum = sum_bytes(sum, u);
    squares = sum_squares(squares, u);
  }

  // Of count values in all, without the 128.
  TAE_VEC int32_t sum_of(int64_t count) const { return reduce_add(sum) - static_cast<int32_t>(128 * count); }
  // (u - 128)^2 = u (u - kSquareShift) + (kSquareShift - 256) u + 128^2
  TAE_VEC int32_t squares_of(int32_t sum_of_count, int64_t count) const {
    const int32_t values = static_cast<int32_t>(count), shift = static_cast<int32_t>(kSquareShift) - 256;
    return reduce_add(squares) + shift * (sum_of_count + 128 * values) + (values << 14);
  }
};

// Both planes of group g with `count` values; replaces its high plane.
template <typename T>
[[gnu::noinline]] float split_group(const T* src, int64_t count, float largest, int64_t g,
                                    const PlaneRow& row) noexcept {
  const int64_t i = row.low_count[g]++, at = g * row.stride + i;
  uint8_t* high = row.high + g * row.stride * row.group;
  uint8_t* low = row.low + at * row.group;
  const float step = step_of(largest, 32639.f);
  const VF inverse = vf(1.f / step);
  PlaneBytes h, l;
  for_runs(src, count, [&](const VF(&x)[4], int64_t k, int64_t n) __attribute__((always_inline)) {
    // q + 32896 = 256 (h + 128) + (l + 128)
    VI hi[4], lo[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const VI u = add(to_int(mul(x[j], inverse)), vi(32896));
      hi[j] = sub(shift_right<8>(u), vi(128));
      lo[j] = sub(and_bits(u, vi(255)), vi(128));
    }
    h.store(high + k, hi[0], hi[1], hi[2], hi[3], row.flip, n);
    l.store(low + k, lo[0], lo[1], lo[2], lo[3], row.flip, n);
  });
  std::memset(low + count, row.flip, static_cast<size_t>(row.group - count));
  row.high_scales.start[g * row.stride] = -row.offset * h.sum_of(count);
  row.low_scales.start[at] = -row.offset * l.sum_of(count);
  row.low_scales.scale[at] = step;
  row.low_row[at] = row.row;
  return 256.f * step;
}

// The planes of group g with `count` values; returns the step of the high one.
template <typename T>
TAE_VEC float group_to_planes(const T* src, int64_t count, float largest, float step, float inverse,
                              int64_t g, const PlaneRow& row) {
  uint8_t* high = row.high + g * row.stride * row.group;
  int32_t* start = row.high_scales.start + g * row.stride;
  if (count < row.group) std::memset(high + count, row.flip, static_cast<size_t>(row.group - count));
  if (__builtin_isnan(largest)) {
    std::memset(high, row.flip, static_cast<size_t>(count));
    *start = 0;
    return largest;
  }
  PlaneBytes h;
  for_runs(src, count, [&](const VF(&x)[4], int64_t k, int64_t n) __attribute__((always_inline)) {
    const VF by = vf(inverse);
    h.store(high + k, to_int(mul(x[0], by)), to_int(mul(x[1], by)), to_int(mul(x[2], by)),
            to_int(mul(x[3], by)), row.flip, n);
  });
  const int32_t sum = h.sum_of(count);
  const float squares = static_cast<float>(h.squares_of(sum, count));
  if (squares < row.two_planes_below * static_cast<float>(count) && largest != 0.f)
    return split_group(src, count, largest, g, row);
  *start = -row.offset * sum;
  return step;
}

// The power of two at or below x, normal and > 0.
TAE_VEC float power_of_two_below(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= 0x7f800000;
  std::memcpy(&x, &bits, sizeof bits);
  return x;
}

// Several groups a step: what the step of one waits for (reductions, divisions) then runs
// beside that of the others.
constexpr int64_t kGroupsAtOnce = 16;

template <typename T>
[[gnu::noinline]] float to_planes(const T* src, const PlaneRow& row) noexcept {
  float* scale = row.high_scales.scale;
  float most = __FLT_MIN__;
  const int64_t groups = (row.k + row.group - 1) / row.group;
  for (int64_t g0 = 0; g0 < groups; g0 += kGroupsAtOnce) {
    const int64_t count = groups - g0 < kGroupsAtOnce ? groups - g0 : kGroupsAtOnce;
    const auto values_of = [&](int64_t g) __attribute__((always_inline)) {
      const int64_t left = row.k - (g0 + g) * row.group;
      return left < row.group ? left : row.group;
    };
    alignas(64) float largest[kGroupsAtOnce] = {}, step[kGroupsAtOnce], inverse[kGroupsAtOnce];
    for (int64_t g = 0; g < count; ++g) largest[g] = largest_of(src + (g0 + g) * row.group, values_of(g));
    for (int64_t g = 0; g < kGroupsAtOnce; ++g) step[g] = step_of(largest[g], 127.f);
    for (int64_t g = 0; g < kGroupsAtOnce; ++g) inverse[g] = 1.f / step[g];
    for (int64_t g = 0; g < count; ++g) {
      const float high_step = group_to_planes(src + (g0 + g) * row.group, values_of(g), largest[g], step[g],
                                              inverse[g], g0 + g, row);
      scale[(g0 + g) * row.stride] = high_step;
      if (high_step > most) most = high_step;
    }
  }
  const float r = power_of_two_below(most), inverse = 1.f / r;
  for (int64_t g = 0; g < groups; ++g) {
    scale[g * row.stride] *= inverse;
    const int64_t last = g * row.stride + row.low_count[g] - 1;
    if (row.low_count[g] != 0 && row.low_row[last] == row.row) row.low_scales.scale[last] *= inverse;
  }
  return r;
}

float to_planes_f32(const float* src, const PlaneRow& row) {
  const DefaultFloatEnv env;
  return to_planes(src, row);
}

float to_planes_bf16(const uint16_t* src, const PlaneRow& row) {
  const DefaultFloatEnv env;
  return to_planes(src, row);
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

[[gnu::noinline]] void accumulate_body(const int32_t* c, const int32_t* column_sum, float scale,
                                       const float* weight_scale, float* v) noexcept {
  for (int64_t j = 0; j < kColumns; j += kLanes) {
    const VI sum = sub(load(c + j, Full{}), shift_left<7>(load(column_sum + j, Full{})));
    VF term = mul(to_float(sum), vf(scale));
    if (weight_scale != nullptr) term = mul(term, load(weight_scale + j, Full{}));
    store(v + j, add(load(v + j, Full{}), term), Full{});
  }
}

void accumulate(const int32_t* c, const int32_t* column_sum, float scale, const float* weight_scale,
                float* v) {
  const DefaultFloatEnv env;
  accumulate_body(c, column_sum, scale, weight_scale, v);
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
