// Sums over rows and columns for norm-inl.h: exact ones of bytes, and of floats in an order that is the
// same at every vector length.
#pragma once

#include "kernels/element_run-inl.h"
#include "kernels/norm.h"
#include "kernels/norm_stats.h"

namespace tae::kernels {
namespace {

// --- exact sums of bytes --------------------------------------------------------

// Steps of 4 groups after which the lanes of squares, each at most 16 * 255^2 a step, are folded;
// fewer than 8 groups may follow.
constexpr int64_t kSquareSteps = 2000;

template <Bytes kBytes>
TAE_VEC VBytes u_domain(VBytes x) {
  return kBytes == Bytes::s8 ? xor_bytes(x, set1_8(128)) : x;
}

// Values of a row up to which 32 bits hold its sums of squares, at most 255^2 each.
constexpr int64_t kLaneRow = 32768;

// Sums of u and u * (u - kSquareShift) of up to kLaneRow values on the way.
struct LaneSums {
  VI sum = vi(0), product = vi(0);
};

// A group of n <= kGroup bytes.
template <Bytes kBytes, typename Count>
TAE_VEC void add_group(const uint8_t* src, Count n, LaneSums* lanes) {
  VBytes u = u_domain<kBytes>(held(load_group_bytes(src, n)));
  if (n != kGroup) u = keep_bytes(u, n);
  lanes->sum = sum_bytes(lanes->sum, u);
  lanes->product = sum_squares(lanes->product, u);
}

TAE_VEC void add_lanes(const LaneSums& lanes, ByteSums* sums) {
  const int64_t sum = reduce_add(lanes.sum);
  sums->sum += sum;
  sums->squares += reduce_add(lanes.product) + kSquareShift * sum;
}

template <Bytes kBytes>
TAE_VEC void sums_of(const void* source, int64_t count, ByteSums* sums) {
  const uint8_t* src = static_cast<const uint8_t*>(source);
  int64_t total = 0, products = 0, i = 0;  // of u and u * (u - kSquareShift)
  // Lanes apart, because each step waits for its sum.
  VI sum[4] = {vi(0), vi(0), vi(0), vi(0)}, product[4] = {vi(0), vi(0), vi(0), vi(0)};
  const auto take = [&](int j, VBytes u) {
    sum[j] = sum_bytes(sum[j], u);
    product[j] = sum_squares(product[j], u);
  };
  const auto fold = [&] {
    products += reduce_sum32(add(add(product[0], product[1]), add(product[2], product[3])));
    total += reduce_sum32(add(add(sum[0], sum[1]), add(sum[2], sum[3])));
    for (int j = 0; j < 4; ++j) sum[j] = product[j] = vi(0);
  };
  while (i + 4 * kGroup <= count) {
    int64_t steps = (count - i) / (4 * kGroup);
    steps = steps < kSquareSteps ? steps : kSquareSteps;
    for (int64_t s = 0; s < steps; ++s, i += 4 * kGroup)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) take(j, u_domain<kBytes>(held(load_bytes(src + i + j * kGroup))));
    if (steps == kSquareSteps) fold();
  }
  for (; i + kGroup <= count; i += kGroup) take(0, u_domain<kBytes>(load_bytes(src + i)));
  if (i < count) take(1, keep_bytes(u_domain<kBytes>(load_bytes(src + i, count - i)), count - i));
  fold();
  sums->sum += total;
  sums->squares += products + kSquareShift * total;
}

[[gnu::noinline]] void sums_run(const void* source, DType dtype, int64_t count, ByteSums* sums) noexcept {
  with_bytes(dtype, [&](auto kind) { sums_of<decltype(kind)::value>(source, count, sums); });
}

// Rows after which 32-bit sums of squares of one column, at most 255^2 each, are folded.
constexpr int64_t kColumnRows = 32768;

template <typename Tail>
TAE_VEC void store_lanes(int32_t* p, VI x, Tail t) {
  store(reinterpret_cast<float*>(p), as_float(x), t);
}

[[gnu::noinline]] void column_sums_run(const void* source, DType dtype, int64_t rows, int64_t stride,
                                       int64_t channels, ByteSums* sums) noexcept {
  const uint8_t* src = static_cast<const uint8_t*>(source);
  const VI shift = vi(shift_of(dtype));
  for (int64_t first = 0; first < rows; first += kColumnRows) {
    const int64_t last = first + kColumnRows < rows ? first + kColumnRows : rows;
    for_elements(channels, [&](int64_t at, auto n) {
      VI sum[4] = {vi(0), vi(0), vi(0), vi(0)}, square[4] = {vi(0), vi(0), vi(0), vi(0)};
      for (int64_t r = first; r < last; ++r)
        for_group(n, [&](int j, auto tail) {
          const VI u = add(load_value(src, r * stride + at + j * kLanes, dtype, tail), shift);
          sum[j] = add(sum[j], u);
          square[j] = add(square[j], mul(u, u));
        });
      int32_t sum_of[kGroup], square_of[kGroup];
      for_group(n, [&](int j, auto tail) {
        store_lanes(sum_of + j * kLanes, sum[j], tail);
        store_lanes(square_of + j * kLanes, square[j], tail);
      });
      for (int64_t c = 0; c < n; ++c) {
        sums[at + c].sum += sum_of[c];
        sums[at + c].squares += square_of[c];
      }
    });
  }
}

// --- sums of floats in 64 lanes -------------------------------------------------

constexpr int kSumLanes = 64;
constexpr int kSumVectors = kSumLanes / kLanes;
// Values after which the f32 lanes are folded into an f64 sum.
constexpr int64_t kSumBlock = 128 * kSumLanes;

// Lane i + lane i + half, until one is left: the same tree at every vector length.
TAE_VEC float fold_lanes(VF (&x)[kSumVectors]) {
#pragma GCC unroll 4
  for (int half = kSumVectors / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) x[j] = add(x[j], x[j + half]);
  alignas(64) float lanes[kLanes];
  store(lanes, x[0], Full{});
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) lanes[j] = lanes[j] + lanes[j + half];
  return lanes[0];
}

// Calls body(at, vector number, tail) for count <= kSumBlock values at their lanes.
template <typename Body>
TAE_VEC void for_sum_lanes(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kSumLanes <= count; i += kSumLanes)
#pragma GCC unroll 16
    for (int j = 0; j < kSumVectors; ++j) body(i + j * kLanes, j, Full{});
  for (int j = 0; i < count; ++j, i += kLanes) {
    if (count - i >= kLanes) {
      body(i, j, Full{});
    } else {
      body(i, j, Part(count - i));
    }
  }
}

TAE_VEC void clear(VF (&x)[kSumVectors]) {
  for (VF& v : x) v = vf(0.f);
}

// 8-bit and bf16 rows as floats, f32 ones as they are, plus `other` of the same kinds.
template <typename Tail>
TAE_VEC VF real_value(const RealRows& r, const uint8_t* row, int64_t at, Tail t) {
  if (r.dtype == DType::f32) return load(reinterpret_cast<const float*>(row) + at, t);
  if (r.dtype == DType::bf16) return load_bf16(reinterpret_cast<const uint16_t*>(row) + at, t);
  return mul(to_float(sub(load_value(row, at, r.dtype, t), vi(r.zero_point))), vf(r.scale));
}

TAE_VEC const uint8_t* row_of(const RealRows& r, int64_t i) {
  return static_cast<const uint8_t*>(r.data) + i * r.stride * static_cast<int64_t>(size_of(r.dtype));
}

template <typename Body>
TAE_VEC void for_vectors(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, Full{});
  if (i < count) body(i, Part(count - i));
}

[[gnu::noinline]] void read_row(const RealRows& input, const uint8_t* row, int64_t count,
                                float* dst) noexcept {
  if (input.dtype == DType::bf16) {
    const uint16_t* src = reinterpret_cast<const uint16_t*>(row);
    for_vectors(count, [&](int64_t i, auto t) { store(dst + i, load_bf16(src + i, t), t); });
  } else {
    for_vectors(count, [&](int64_t i, auto t) { store(dst + i, real_value(input, row, i, t), t); });
  }
}

[[gnu::noinline]] void add_row(const RealRows& other, const uint8_t* row, const float* base, int64_t count,
                               float* dst) noexcept {
  for_vectors(count, [&](int64_t i, auto t) {
    store(dst + i, add(load(base + i, t), real_value(other, row, i, t)), t);
  });
}

[[gnu::noinline]] void bf16_row(const float* row, int64_t count, uint16_t* dst) noexcept {
  for_vectors(count, [&](int64_t i, auto t) { store_bf16(dst + i, load(row + i, t), t); });
}

[[gnu::noinline]] double sum_row(const float* row, int64_t count) noexcept {
  double total = 0.;
  for (int64_t first = 0; first < count; first += kSumBlock) {
    VF sum[kSumVectors];
    clear(sum);
    const float* x = row + first;
    for_sum_lanes(count - first < kSumBlock ? count - first : kSumBlock,
                  [&](int64_t i, int j, auto t) { sum[j] = add(sum[j], load(x + i, t)); });
    total += static_cast<double>(fold_lanes(sum));
  }
  return total;
}

struct Moments {
  double sum = 0., squares = 0.;
};

// Of d = x - m.
[[gnu::noinline]] Moments moments_row(const float* row, int64_t count, float m) noexcept {
  alignas(64) float centre[kLanes];
  for (float& v : centre) v = m;
  Moments total;
  for (int64_t first = 0; first < count; first += kSumBlock) {
    VF sum[kSumVectors], squares[kSumVectors];
    clear(sum);
    clear(squares);
    const float* x = row + first;
    for_sum_lanes(count - first < kSumBlock ? count - first : kSumBlock, [&](int64_t i, int j, auto t) {
      const VF d = sub(load(x + i, t), load(centre, t));  // 0 behind the end
      sum[j] = add(sum[j], d);
      squares[j] = add(squares[j], mul(d, d));
    });
    total.sum += static_cast<double>(fold_lanes(sum));
    total.squares += static_cast<double>(fold_lanes(squares));
  }
  return total;
}

}  // namespace
}  // namespace tae::kernels
