// 8-bit results of 8-bit values in 16-bit fixed point, for norm-inl.h: half the instructions of the way
// through floats. The rules and their errors: norm.h.
#pragma once

#include <bit>
#include <cmath>

#include "kernels/norm_sums-inl.h"

namespace tae::kernels {
namespace {

constexpr int kWordLanes = 2 * kLanes;

// Of two magnitudes, NaN wins: no comparison with it holds.
TAE_VEC VF larger_or_nan(VF x, VF most) { return select(unordered(x, most), vf(NAN), max(x, most)); }

TAE_VEC float largest(VF x) { return any(is_nan(x)) ? NAN : reduce_max(x); }

// Parts of a caller's scratch memory, each of whole groups.
struct LaneRoom {
  LaneRoom(float* scratch, int64_t count) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(scratch);
    first = scratch + (-at % 64) / sizeof(float);
    values = (count + kGroup - 1) / kGroup * kGroup;  // what arrange_lanes writes
    second = first + values;
    words = reinterpret_cast<int16_t*>(second + values);
  }
  float *first, *second;
  int16_t* words;
  int64_t values;
};

TAE_VEC VI load_words(const int16_t* p) { return load_bytes(p); }

TAE_VEC void store_words(const VI (&x)[4], int16_t* to) {
  store_bytes(to, narrow(x[0], x[1]));
  store_bytes(to + kWordLanes, narrow(x[2], x[3]));
}

// u - 128 of bytes u of the u8 domain.
template <Bytes kBytes>
TAE_VEC VBytes centred_bytes(const uint8_t* src, int64_t n) {
  const VBytes v = load_group_bytes(src, n);
  return kBytes == Bytes::u8 ? xor_bytes(v, set1_8(128)) : v;
}

// (u - 128) * 2^8 of them.
template <Bytes kBytes>
TAE_VEC void read_words(const uint8_t* src, int64_t n, VI& low, VI& high) {
  spread_bytes(centred_bytes<kBytes>(src, n), low, high);
}

// Whether results are bytes in steps of the output, of bytes.
inline bool takes_words(const Finish& f, DType input) {
  return is_quantized(input) && is_quantized(f.dtype) && folds(f) && f.inverse_scale == 1.f;
}

inline float u8_zero_point(DType dtype, int32_t zero_point) {
  return static_cast<float>(zero_point + shift_of(dtype));
}

// Most bits of a fraction: with one more, the largest word would be less than 255 steps.
constexpr int kMostFraction = 7;

// --- channels: y = a[c] * v + b[c] ----------------------------------------------

constexpr int kLeastChannelFraction = 4;

// In lane order, but for `used`: 255 for each channel that has words, else 0.
struct ChannelWords {
  int16_t *factor, *offset, *unit;
  uint8_t* used;
};

// Room for them behind the floats.
TAE_VEC ChannelWords channel_room(int16_t* words, int64_t values) {
  return {words, words + values, words + 2 * values, reinterpret_cast<uint8_t*>(words + 3 * values)};
}

// Of vectors of channels, as integers; the mask of those that have some.
TAE_VEC VMask to_words(VF a, VF b, VF middle, VF zero_point, VI& factor, VI& offset, VI& unit) {
  const VF centre = add(add(mul(a, middle), b), zero_point);
  const VF most = larger_or_nan(abs(centre), mul(abs(a), vf(128.f)));
  VF up = vf(0.f), down = vf(0.f);
#pragma GCC unroll 8
  for (int bits = kLeastChannelFraction; bits <= kMostFraction; ++bits) {
    const VMask fits = less(most, vf(32767.f / static_cast<float>(1 << bits)));
    up = select(fits, vf(static_cast<float>(1 << bits)), up);
    down = select(fits, vf(static_cast<float>(1 << (15 - bits))), down);
  }
  factor = to_int(mul(a, mul(up, vf(128.f))));
  offset = to_int(mul(centre, up));
  unit = to_int(down);
  return less(most, vf(32767.f / static_cast<float>(1 << kLeastChannelFraction)));
}

// Of a and b in lane order, whole groups.
[[gnu::noinline]] void arrange_channel_words(const Finish& finish, const Operand& row, const float* a,
                                             const float* b, int64_t values, const ChannelWords& w) noexcept {
  const VF middle = vf(128.f - u8_zero_point(row.dtype, row.zero_point));
  const VF zero_point = vf(u8_zero_point(finish.dtype, finish.zero_point));
  for (int64_t at = 0; at < values; at += kGroup) {
    VI factor[4], offset[4], unit[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const int64_t i = at + j * kLanes;
      to_words(load(a + i, Full{}), load(b + i, Full{}), middle, zero_point, factor[j], offset[j], unit[j]);
    }
    store_words(factor, w.factor + at);
    store_words(offset, w.offset + at);
    store_words(unit, w.unit + at);
    store_bytes(w.used + at, pack_lanes(unit[0], unit[1], unit[2], unit[3], set1_16(0)));
  }
}

// Rows that one loop normalizes: they share its loads of parameters. AVX2 has registers for one.
constexpr int kTogether = kLanes == 16 ? 2 : 1;

// Words as mul_words and add_words take them.
struct WordVectors {
  VI factor, offset, unit;
  TAE_VEC VI operator()(VI x) const { return mul_words(add_words(mul_words(x, factor), offset), unit); }
};

// kMixed: results of the channels that have words; the rest of dst stays.
template <Bytes kBytes, bool kMixed>
TAE_VEC void affine_words(const Finish& finish, const Operand& row, const ChannelWords& w, int64_t rows,
                          int64_t count, uint8_t* dst) {
  const uint8_t* src = static_cast<const uint8_t*>(row.data);
  const int16_t *factor = w.factor, *offset = w.offset, *unit = w.unit;  // not read again behind each store
  const uint8_t* used = w.used;
  with_lane_writer(finish, dst, [&](const auto& write) __attribute__((always_inline)) {
    const auto block = [&](auto together, int64_t first) __attribute__((always_inline)) {
      for_elements(count, [&](int64_t c, auto n) __attribute__((always_inline)) {
        const int64_t d = c + kWordLanes;
        const WordVectors low{held(load_words(factor + c)), held(load_words(offset + c)),
                              held(load_words(unit + c))};
        const WordVectors high{held(load_words(factor + d)), held(load_words(offset + d)),
                               held(load_words(unit + d))};
#pragma GCC unroll 2
        for (int k = 0; k < decltype(together)::value; ++k) {
          const int64_t at = (first + k) * count + c;
          VI x, y;
          read_words<kBytes>(src + at, n, x, y);
          VBytes bytes = write.finished(pack_words(low(x), high(y)));
          if constexpr (kMixed) {
            const VBytes old = load_group_bytes(dst + at, n);
            bytes = xor_bytes(old, and_bits(xor_bytes(old, bytes), load_bytes(used + c)));
          }
          write.store(at, n, bytes);
        }
      });
    };
    int64_t r = 0;
    for (; r + kTogether <= rows; r += kTogether) block(Constant<kTogether>(), r);
    for (; r < rows; ++r) block(Constant<1>(), r);
  });
}

// One channel; false where it has no words.
template <Bytes kBytes>
TAE_VEC bool affine_all_words(const Finish& finish, const Operand& row, float a, float b, int64_t count,
                              uint8_t* dst) {
  const VF middle = vf(128.f - u8_zero_point(row.dtype, row.zero_point));
  const VF zero_point = vf(u8_zero_point(finish.dtype, finish.zero_point));
  VI factor, offset, unit;
  if (!any(to_words(vf(a), vf(b), middle, zero_point, factor, offset, unit))) return false;
  const WordVectors all{narrow(factor, factor), narrow(offset, offset), narrow(unit, unit)};
  const uint8_t* src = static_cast<const uint8_t*>(row.data);
  with_lane_writer(finish, dst, [&](const auto& write) {
    for_elements(count, [&](int64_t at, auto n) {
      VI x, y;
      read_words<kBytes>(src + at, n, x, y);
      write.store(at, n, write.finished(pack_words(all(x), all(y))));
    });
  });
  return true;
}

// --- rows: n = a * v + b, y = n * weight[c] + bias[c] -----------------------------

constexpr int kNormFraction = 10, kLeastRowFraction = 4;

// What makes words of weight and bias in steps; `unit` is 0 where they have none.
struct RowUnits {
  float zero_point = 0.f, weight = 0.f, bias = 0.f;
  int16_t unit = 0;
};

// From the largest magnitudes of weight and of bias + zero point.
inline RowUnits row_units(const Finish& finish, float most_weight, float most_bias) {
  constexpr float kWeightUnit = 1 << (15 - kNormFraction);
  RowUnits u;
  u.zero_point = u8_zero_point(finish.dtype, finish.zero_point);
  for (int bits = kMostFraction; bits >= kLeastRowFraction; --bits) {
    const float one = static_cast<float>(1 << bits), most = 32767.f / one;
    if (!(most_weight * kWeightUnit < most) || !(most_bias < most)) continue;
    u.weight = one * kWeightUnit;
    u.bias = one;
    u.unit = static_cast<int16_t>(1 << (15 - bits));
    break;
  }
  return u;
}

// A group of weight and bias in steps as words, in the order of `narrow`.
TAE_VEC void parameter_words(const VF (&weight)[4], const VF (&bias)[4], const RowUnits& u, VI (&w)[2],
                             VI (&shift)[2]) {
  VI x[4], y[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    x[j] = to_int(mul(weight[j], vf(u.weight)));
    y[j] = to_int(mul(add(bias[j], vf(u.zero_point)), vf(u.bias)));
  }
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) {
    w[j] = narrow(x[2 * j], x[2 * j + 1]);
    shift[j] = narrow(y[2 * j], y[2 * j + 1]);
  }
}

// weight and bias in lane order; without words, `unit` is 0.
struct RowParameterWords {
  const int16_t *weight = nullptr, *bias = nullptr;
  int16_t unit = 0;
};

// Of weight and bias in lane order and in steps, at most most_weight.
[[gnu::noinline]] RowParameterWords arrange_row_words(const Finish& finish, const LaneRoom& room,
                                                      float most_weight) noexcept {
  const VF zero_point = vf(u8_zero_point(finish.dtype, finish.zero_point));
  VF most = vf(0.f);
  for (int64_t at = 0; at < room.values; at += kLanes)
    most = larger_or_nan(abs(add(load(room.second + at, Full{}), zero_point)), most);
  const RowUnits u = row_units(finish, most_weight, largest(most));
  RowParameterWords p;
  if (u.unit == 0) return p;
  p.weight = room.words;
  p.bias = room.words + room.values;
  p.unit = u.unit;
  for (int64_t at = 0; at < room.values; at += kGroup) {
    VF weight[4], bias[4];
    VI w[2], shift[2];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      weight[j] = load(room.first + at + j * kLanes, Full{});
      bias[j] = load(room.second + at + j * kLanes, Full{});
    }
    parameter_words(weight, bias, u, w, shift);
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      store_bytes(room.words + at + j * kWordLanes, w[j]);
      store_bytes(room.words + room.values + at + j * kWordLanes, shift[j]);
    }
  }
  return p;
}

// Words of one row; factor 0 where it has none.
struct RowWords {
  int16_t factor = 0, offset = 0;
};

struct WordRow {
  VI factor, offset, unit;
  TAE_VEC VI operator()(VI x, VI weight, VI bias) const {
    const VI t = add_words(mul_words(x, factor), offset);
    return mul_words(add_words(mul_words(t, weight), bias), unit);
  }
};

// Values of a row up to which |n| <= sqrt(count) keeps it below 32.
constexpr int64_t kShortWordRow = 1022;

// The integer at x of |x| < 2^31, half to even, in the low bits.
inline int64_t integer_bits(double x) { return std::bit_cast<int64_t>(x + 0x1.8p52); }

// Of kStatRows rows together, without a branch.
inline void row_words(const float (&a)[kStatRows], const float (&b)[kStatRows], int64_t count,
                      int32_t u8_zero_point, RowWords (&words)[kStatRows]) {
  const double middle = 128. - u8_zero_point, one = 1 << kNormFraction;
  const double most = count > kShortWordRow ? 32765. : 65534.;
  int16_t factors[kStatRows], offsets[kStatRows];
  for (int r = 0; r < kStatRows; ++r) {
    const double slope = static_cast<double>(a[r]);
    const double factor = slope * (128. * one), offset = (slope * middle + static_cast<double>(b[r])) * one;
    const double size = std::fabs(offset);
    const bool fits = (factor < 32767.) & (size < 32767.) & (factor + size < most);
    const int64_t mask = -static_cast<int64_t>(fits);
    factors[r] = static_cast<int16_t>(integer_bits(factor) & mask);
    offsets[r] = static_cast<int16_t>(integer_bits(offset) & mask);
  }
  for (int r = 0; r < kStatRows; ++r) words[r] = {factors[r], offsets[r]};
}

}  // namespace
}  // namespace tae::kernels
