// Normalized rows of bytes from their coefficients, one or two at a time, for norm_rows-inl.h.
#pragma once

#include "kernels/norm_words-inl.h"

namespace tae::kernels {
namespace {

TAE_VEC void* row_at(void* dst, DType dtype, int64_t row, int64_t count) {
  return static_cast<uint8_t*>(dst) + row * count * static_cast<int64_t>(size_of(dtype));
}

struct Coefficients {
  float a, b;
  RowWords words;
};

// n = fma(v, a, b), r = fma(n, weight, bias) in the order of memory; weight and bias times `factor`.
TAE_VEC void normalize_bytes(const RowNorm& norm, const Finish& finish, const RealRows& input,
                             const uint8_t* row, const Coefficients& c, float factor, void* dst) {
  const VF a = vf(c.a), b = vf(c.b), f = vf(factor);
  const VI zero = vi(input.zero_point);
  with_writer(finish, dst, [&](const auto& write) {
    for_elements(norm.count, [&](int64_t at, auto n) {
      VF x[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
      for_group(n, [&](int j, auto t) {
        const int64_t i = at + j * kLanes;
        const VF weight = norm.weight == nullptr ? f : mul(load(norm.weight + i, t), f);
        const VF bias = norm.bias == nullptr ? vf(0.f) : mul(load(norm.bias + i, t), f);
        const VF v = to_float(sub(load_value(row, i, input.dtype, t), zero));
        x[j] = fma(fma(v, a, b), weight, bias);
      });
      write(at, n, x);
    });
  });
}

// The parameters of rows in lane order, times `factor`, and their largest magnitudes.
struct LaneParameters {
  const float* weight;
  const float* bias;
  float most_weight, most_bias;
};

[[gnu::noinline]] LaneParameters arrange(const RowNorm& norm, float factor, const LaneRoom& room) noexcept {
  LaneParameters p{room.first, room.second, 0.f, 0.f};
  const VF f = vf(factor);
  VF most[2] = {vf(0.f), vf(0.f)};
  const float* from[2] = {norm.weight, norm.bias};
  for (int i = 0; i < 2; ++i) {
    float* to = i == 0 ? room.first : room.second;
    if (from[i] != nullptr) arrange_lanes(from[i], norm.count, to);
    for (int64_t at = 0; at < room.values; at += kLanes) {
      const VF x = from[i] != nullptr ? mul(load(to + at, Full{}), f) : vf(i == 0 ? factor : 0.f);
      store(to + at, x, Full{});
      most[i] = larger_or_nan(abs(x), most[i]);
    }
  }
  p.most_weight = largest(most[0]);
  p.most_bias = largest(most[1]);
  return p;
}

// How far in front of the sums their rows are fetched: two rows at a time are no stream that the CPU sees.
constexpr int64_t kFetchBytes = 3072;

inline int64_t fetched_ahead(int64_t stride, int rows) {
  return stride > 0 ? (kFetchBytes / stride + 1) * rows * stride : 0;
}

// Sums on the way of one row or two: no array, which GCC 12 writes to memory at each step.
template <Bytes kBytes, int kRows>
struct RowSums {
  LaneSums first, second;

  template <typename Count>
  TAE_VEC void add(const uint8_t* from, int64_t stride, int64_t fetched, Count n) {
    __builtin_prefetch(from + fetched);
    add_group<kBytes>(from, n, &first);
    if constexpr (kRows == 2) {
      __builtin_prefetch(from + stride + fetched);
      add_group<kBytes>(from + stride, n, &second);
    }
  }
  TAE_VEC void add_to(ByteSums* sums) const {
    add_lanes(first, sums);
    if constexpr (kRows == 2) add_lanes(second, sums + 1);
  }
};

// kRows rows, and with kSums the sums of as many rows from `ahead` on: these come from memory while those
// keep the arithmetic busy.
template <Bytes kBytes, int kRows, bool kSums>
TAE_VEC void lane_rows(const RowNorm& norm, const RealRows& input, const uint8_t* row, const Coefficients* c,
                       const LaneParameters& p, const Finish& finish, uint8_t* dst, const uint8_t* ahead,
                       ByteSums* sums) {
  const LaneReader<kBytes> read({row, input.dtype, 1.f, input.zero_point});
  // Not read again behind each store of bytes.
  const float *weight = p.weight, *bias = p.bias;
  const int64_t stride = input.stride, count = norm.count;
  const int64_t fetched = fetched_ahead(stride, kRows);
  VF a[kRows], b[kRows];
  RowSums<kBytes, kRows> lanes;
  for (int k = 0; k < kRows; ++k) a[k] = vf(c[k].a), b[k] = vf(c[k].b);
  with_lane_writer(finish, dst, [&](const auto& write) __attribute__((always_inline)) {
    for_elements(count, [&](int64_t at, auto n) __attribute__((always_inline)) {
      VF x[kRows][4];
      for (int k = 0; k < kRows; ++k) read(k * stride + at, n, x[k]);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const VF w = held(load(weight + at + j * kLanes, Full{})),
                 shift = held(load(bias + at + j * kLanes, Full{}));
        for (int k = 0; k < kRows; ++k) x[k][j] = fma(fma(x[k][j], a[k], b[k]), w, shift);
      }
      for (int k = 0; k < kRows; ++k) write(k * count + at, n, x[k]);
      if constexpr (kSums) lanes.add(ahead + at, stride, fetched, n);
    });
  });
  if constexpr (kSums) lanes.add_to(sums);
}

// The same for rows that have words.
template <Bytes kBytes, int kRows, bool kSums>
TAE_VEC void word_rows(const RowNorm& norm, const RealRows& input, const uint8_t* row, const Coefficients* c,
                       const RowParameterWords& p, const Finish& finish, uint8_t* dst, const uint8_t* ahead,
                       ByteSums* sums) {
  const int16_t *weight = p.weight, *bias = p.bias;
  const int64_t stride = input.stride, count = norm.count;
  const int64_t fetched = fetched_ahead(stride, kRows);
  WordRow word[kRows];
  RowSums<kBytes, kRows> lanes;
  for (int k = 0; k < kRows; ++k)
    word[k] = {set1_16(c[k].words.factor), set1_16(c[k].words.offset), set1_16(p.unit)};
  with_lane_writer(finish, dst, [&](const auto& write) __attribute__((always_inline)) {
    for_elements(count, [&](int64_t at, auto n) __attribute__((always_inline)) {
      VI w[2], shift[2];
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        w[j] = held(load_words(weight + at + j * kWordLanes));
        shift[j] = held(load_words(bias + at + j * kWordLanes));
      }
#pragma GCC unroll 2
      for (int k = 0; k < kRows; ++k) {
        VI x[2];
        read_words<kBytes>(row + k * stride + at, n, x[0], x[1]);
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) x[j] = word[k](x[j], w[j], shift[j]);
        write.store(k * count + at, n, write.finished(pack_words(x[0], x[1])));
      }
      if constexpr (kSums) lanes.add(ahead + at, stride, fetched, n);
    });
  });
  if constexpr (kSums) lanes.add_to(sums);
}

// Of weight and bias in the order of memory, times `factor`.
RowUnits units_of(const RowNorm& norm, const Finish& finish, float factor) {
  const VF f = vf(factor), zero_point = vf(u8_zero_point(finish.dtype, finish.zero_point));
  VF weight = norm.weight == nullptr ? f : vf(0.f), bias = zero_point;
  for_vectors(norm.count, [&](int64_t i, auto t) {
    if (norm.weight != nullptr) weight = larger_or_nan(abs(mul(load(norm.weight + i, t), f)), weight);
    if (norm.bias != nullptr)
      bias = larger_or_nan(abs(add(mul(load(norm.bias + i, t), f), zero_point)), bias);
  });
  return row_units(finish, largest(weight), largest(bias));
}

// A row whose parameters become words where they lie, in the order of memory: the bytes are what is moved.
template <Bytes kBytes>
TAE_VEC void single_word_row(const RowNorm& norm, const Finish& finish, const uint8_t* row,
                             const RowWords& words, const RowUnits& units, float factor, uint8_t* dst) {
  const WordRow word{set1_16(words.factor), set1_16(words.offset), set1_16(units.unit)};
  const VF f = vf(factor);
  with_lane_writer(finish, dst, [&](const auto& write) {
    for_elements(norm.count, [&](int64_t at, auto n) {
      VF weight[4] = {f, f, f, f}, bias[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
      for_group(n, [&](int j, auto t) {
        const int64_t i = at + j * kLanes;
        if (norm.weight != nullptr) weight[j] = mul(load(norm.weight + i, t), f);
        if (norm.bias != nullptr) bias[j] = mul(load(norm.bias + i, t), f);
      });
      VI w[2], shift[2], x[2];
      parameter_words(weight, bias, units, w, shift);
      spread_bytes(to_lanes(centred_bytes<kBytes>(row + at, n)), x[0], x[1]);
      const VBytes y = pack_words(word(x[0], w[0], shift[0]), word(x[1], w[1], shift[1]));
      write.store(at, n, write.finished(from_lanes(y)));
    });
  });
}

}  // namespace
}  // namespace tae::kernels
