// The kernels of norm.h over vec.h's vectors, included once by norm.cpp and each
// norm__<isa>.cpp.
#pragma once

#include "kernels/element_run-inl.h"
#include "kernels/norm.h"
#include "kernels/norm_stats.h"

namespace tae::kernels {
namespace {

// --- exact sums of bytes --------------------------------------------------------

// Steps after which 32-bit lanes of squares, at most 4 * 255^2 a step, are folded.
constexpr int64_t kSquareSteps = 8192;

TAE_VEC int64_t reduce_sum32(VI x) {
  alignas(64) int32_t lanes[kLanes];
  std::memcpy(lanes, &x, sizeof lanes);
  int64_t sum = 0;
  for (int32_t v : lanes) sum += v;
  return sum;
}

[[gnu::noinline]] void sums_run(const void* source, DType dtype, int64_t count, ByteSums* sums) noexcept {
  const uint8_t* src = static_cast<const uint8_t*>(source);
  const VBytes flip = set1_8(shift_of(dtype));
  VI sum = vi(0);
  int64_t squares = 0, i = 0;
  while (i + kGroup <= count) {
    const int64_t left = (count - i) / kGroup, steps = left < kSquareSteps ? left : kSquareSteps;
    VI part = vi(0);
    for (int64_t s = 0; s < steps; ++s, i += kGroup) {
      const VBytes u = xor_bytes(load_bytes(src + i), flip);
      sum = sum_bytes(sum, u);
      part = sum_squares(part, u);
    }
    squares += reduce_sum32(part);
  }
  if (i < count) {
    const VBytes u = keep_bytes(xor_bytes(load_bytes(src + i, count - i), flip), count - i);
    sum = sum_bytes(sum, u);
    squares += reduce_sum32(sum_squares(vi(0), u));
  }
  sums->sum += reduce_sum64(sum);
  sums->squares += squares;
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

// --- from values to results -----------------------------------------------------

// x = x * weight + bias at [at, at + n), either null.
TAE_VEC void scale_and_shift(const float* weight, const float* bias, int64_t at, int64_t n, VF (&x)[4]) {
  if (weight != nullptr)
    for_group(n, [&](int j, auto t) { x[j] = mul(x[j], load(weight + at + j * kLanes, t)); });
  if (bias != nullptr)
    for_group(n, [&](int j, auto t) { x[j] = add(x[j], load(bias + at + j * kLanes, t)); });
}

// r = (v * a + b) * weight + bias over the vectors v that `read` gives.
template <typename Read>
TAE_VEC void normalize_row(const RowNorm& norm, const Finish& finish, float a, float b, const Read& read,
                           void* dst) {
  const VF factor = vf(a), offset = vf(b);
  with_writer(finish, dst, [&](const auto& write) {
    for_elements(norm.count, [&](int64_t at, auto n) {
      VF x[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
      for_group(n, [&](int j, auto t) { x[j] = add(mul(read(at + j * kLanes, t), factor), offset); });
      scale_and_shift(norm.weight, norm.bias, at, n, x);
      write(at, n, x);
    });
  });
}

TAE_VEC void* row_at(void* dst, DType dtype, int64_t row, int64_t count) {
  return static_cast<uint8_t*>(dst) + row * count * static_cast<int64_t>(size_of(dtype));
}

[[gnu::noinline]] void byte_rows_run(const RowNorm& norm, const RealRows& input, int64_t rows,
                                     const NormOutput& out) noexcept {
  const int32_t zero_point = input.zero_point + shift_of(input.dtype);
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* row = row_of(input, r);
    ByteSums sums;
    sums_run(row, input.dtype, norm.count, &sums);
    const ByteStats stats = byte_stats(sums, norm.count, zero_point, input.scale, norm.eps, norm.centred);
    const double factor = static_cast<double>(input.scale) * stats.k;
    const float a = static_cast<float>(factor);
    const float b = norm.centred ? static_cast<float>(-stats.mean * factor) : 0.f;
    const VI zero = vi(input.zero_point);
    void* dst = row_at(out.dst, out.finish.dtype, r, norm.count);
    if (input.dtype == DType::qs8) {
      const int8_t* q = reinterpret_cast<const int8_t*>(row);
      normalize_row(
          norm, out.finish, a, b, [&](int64_t i, auto t) { return to_float(sub(load_s8(q + i, t), zero)); },
          dst);
    } else {
      normalize_row(
          norm, out.finish, a, b, [&](int64_t i, auto t) { return to_float(sub(load_u8(row + i, t), zero)); },
          dst);
    }
  }
}

[[gnu::noinline]] void real_rows_run(const RowNorm& norm, const RealRows& input, const RealRows* other,
                                     int64_t rows, float* scratch, const NormOutput& out) noexcept {
  const int64_t count = norm.count;
  const double n = static_cast<double>(count);
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = reinterpret_cast<const float*>(row_of(input, r));
    if (input.dtype != DType::f32) {
      read_row(input, row_of(input, r), count, scratch);
      x = scratch;
    }
    if (other != nullptr) {
      add_row(*other, row_of(*other, r), x, count, scratch);
      x = scratch;
    }
    if (out.real != nullptr) {
      void* real = row_at(out.real, out.real_dtype, r, count);
      if (out.real_dtype == DType::f32) {
        std::memcpy(real, x, static_cast<size_t>(count) * sizeof(float));
      } else {
        bf16_row(x, count, static_cast<uint16_t*>(real));
      }
    }
    const float m = norm.centred ? static_cast<float>(sum_row(x, count) / n) : 0.f;
    const Moments moments = moments_row(x, count, m);
    const double rest = norm.centred ? moments.sum / n : 0.;
    const double k = 1. / std::sqrt(moments.squares / n - rest * rest + norm.eps);
    const VF centre = vf(m);
    normalize_row(
        norm, out.finish, static_cast<float>(k), static_cast<float>(-rest * k),
        [&](int64_t i, auto t) { return sub(load(x + i, t), centre); },
        row_at(out.dst, out.finish.dtype, r, count));
  }
}

// r = v * a[c] + b[c] over rows of the vectors v that `read` gives; or with one a and b.
struct Factors {
  const float* a;
  const float* b;
  bool each;  // one for each value of a row
  int64_t rows;
};

template <typename Read>
TAE_VEC void affine_values(const Finish& finish, const Factors& f, int64_t count, const Read& read,
                           void* dst) {
  RowNorm plain;
  plain.count = count;
  if (!f.each) {
    normalize_row(plain, finish, f.a[0], f.b[0], read, dst);
    return;
  }
  with_writer(finish, dst, [&](const auto& write) {
    for (int64_t r = 0; r < f.rows; ++r)
      for_elements(count, [&](int64_t c, auto n) {
        const int64_t at = r * count + c;
        VF x[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
        for_group(n, [&](int j, auto t) {
          const VF v = mul(read(at + j * kLanes, t), load(f.a + c + j * kLanes, t));
          x[j] = add(v, load(f.b + c + j * kLanes, t));
        });
        write(at, n, x);
      });
  });
}

[[gnu::noinline]] void affine_run(const Finish& finish, const Operand& row, const Factors& f, int64_t count,
                                  void* dst) noexcept {
  const VI zero = vi(row.zero_point);
  if (is_quantized(row.dtype)) {
    with_bytes(row.dtype, [&](auto kind) {
      affine_values(
          finish, f, count,
          [&](int64_t i, auto t) {
            return to_float(sub(load_value<decltype(kind)::value>(row.data, i, row.dtype, t), zero));
          },
          dst);
    });
  } else if (row.dtype == DType::bf16) {
    const uint16_t* x = static_cast<const uint16_t*>(row.data);
    affine_values(finish, f, count, [&](int64_t i, auto t) { return load_bf16(x + i, t); }, dst);
  } else {
    const float* x = static_cast<const float*>(row.data);
    affine_values(finish, f, count, [&](int64_t i, auto t) { return load(x + i, t); }, dst);
  }
}

// The float environment is set outside: arithmetic could be moved across it.
void byte_rows_entry(const RowNorm& norm, const RealRows& input, int64_t rows, const NormOutput& out) {
  const DefaultFloatEnv env;
  byte_rows_run(norm, input, rows, out);
}

void real_rows_entry(const RowNorm& norm, const RealRows& input, const RealRows* other, int64_t rows,
                     float* scratch, const NormOutput& out) {
  const DefaultFloatEnv env;
  real_rows_run(norm, input, other, rows, scratch, out);
}

void affine_entry(const Finish& finish, const Operand& row, const float* a, const float* b, int64_t rows,
                  int64_t count, void* dst) {
  const DefaultFloatEnv env;
  affine_run(finish, row, {a, b, true, rows}, count, dst);
}

void affine_all_entry(const Finish& finish, const Operand& row, float a, float b, int64_t count, void* dst) {
  const DefaultFloatEnv env;
  affine_run(finish, row, {&a, &b, false, 1}, count, dst);
}

constexpr NormKernels kNormKernels = {byte_rows_entry, real_rows_entry, sums_run,
                                      column_sums_run, affine_entry,    affine_all_entry};

}  // namespace
}  // namespace tae::kernels
