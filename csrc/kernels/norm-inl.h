// The kernels of norm.h over vec.h's vectors, included once by norm.cpp and each
// norm__<isa>.cpp.
#pragma once

#include "kernels/norm_sums-inl.h"

namespace tae::kernels {
namespace {

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

// Of two magnitudes, NaN wins: no comparison with it holds.
TAE_VEC VF larger_or_nan(VF x, VF most) { return select(unordered(x, most), vf(NAN), max(x, most)); }

TAE_VEC float largest(VF x) { return any(is_nan(x)) ? NAN : reduce_max(x); }

struct Coefficients {
  float a, b;
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

// The two halves of a caller's lane_floats(count).
struct LaneRoom {
  LaneRoom(float* scratch, int64_t count) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(scratch);
    first = scratch + (-at % 64) / sizeof(float);
    values = (count + 63) / 64 * 64;
    second = first + values;
  }
  float *first, *second;
  int64_t values;
};

[[gnu::noinline]] LaneParameters arrange(const RowNorm& norm, float factor, float* scratch) noexcept {
  const LaneRoom room(scratch, norm.count);
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

template <Bytes kBytes>
TAE_VEC void lane_row(const RowNorm& norm, const Operand& row, const Coefficients& c, const LaneParameters& p,
                      const Finish& finish, void* dst) {
  const LaneReader<kBytes> read(row);
  const VF a = vf(c.a), b = vf(c.b);
  const float *weight = p.weight, *bias = p.bias;  // not read again behind each store of bytes
  with_lane_writer(finish, dst, [&](const auto& write) {
    for_elements(norm.count, [&](int64_t at, auto n) {
      VF x[4];
      read(at, n, x);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const int64_t i = at + j * kLanes;
        x[j] = fma(fma(x[j], a, b), load(weight + i, Full{}), load(bias + i, Full{}));
      }
      write(at, n, x);
    });
  });
}

void row_coefficients(const RowNorm& norm, const RealRows& input, const ByteSums (&sums)[kStatRows],
                      Coefficients* c) {
  const int32_t zero_point = input.zero_point + shift_of(input.dtype);
  ByteStats stats[kStatRows];
  byte_stats(sums, norm.count, zero_point, input.scale, norm.eps, norm.centred, stats);
  for (int64_t r = 0; r < kStatRows; ++r) {
    const double factor = static_cast<double>(input.scale) * stats[r].k;
    c[r].a = static_cast<float>(factor);
    c[r].b = norm.centred ? static_cast<float>(-stats[r].mean * factor) : 0.f;
  }
}

template <Bytes kBytes>
TAE_VEC void byte_rows(const RowNorm& norm, const RealRows& input, int64_t rows, float* scratch,
                       const NormOutput& out) {
  const bool folded = is_quantized(out.finish.dtype) && folds(out.finish);
  Finish finish = out.finish;
  const float factor = folded ? finish.inverse_scale : 1.f;
  if (folded) finish.inverse_scale = 1.f;
  LaneParameters lanes{};
  if (scratch != nullptr) lanes = arrange(norm, factor, scratch);
  for (int64_t first = 0; first < rows; first += kStatRows) {
    const int64_t count = rows - first < kStatRows ? rows - first : kStatRows;
    ByteSums sums[kStatRows];
    Coefficients c[kStatRows];
    for (int64_t r = 0; r < count; ++r) sums_of<kBytes>(row_of(input, first + r), norm.count, sums + r);
    row_coefficients(norm, input, sums, c);
    for (int64_t r = 0; r < count; ++r) {
      const uint8_t* row = row_of(input, first + r);
      void* dst = row_at(out.dst, finish.dtype, first + r, norm.count);
      const float most =
          (255.f * std::fabs(c[r].a) + std::fabs(c[r].b)) * lanes.most_weight + lanes.most_bias;
      if (scratch != nullptr && fits_lanes(finish, most)) {
        lane_row<kBytes>(norm, {row, input.dtype, 1.f, input.zero_point}, c[r], lanes, finish, dst);
      } else {
        normalize_bytes(norm, finish, input, row, c[r], factor, dst);
      }
    }
  }
}

[[gnu::noinline]] void byte_rows_run(const RowNorm& norm, const RealRows& input, int64_t rows, float* scratch,
                                     const NormOutput& out) noexcept {
  with_bytes(input.dtype,
             [&](auto kind) { byte_rows<decltype(kind)::value>(norm, input, rows, scratch, out); });
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

// r = fma(v, a[c], b[c]) over rows of the vectors v that `read` gives; or with one a and b.
struct Factors {
  const float* a;
  const float* b;
  bool each;  // one for each value of a row
  int64_t rows;
};

template <typename Read>
TAE_VEC void affine_values(const Finish& finish, const Factors& f, int64_t count, const Read& read,
                           void* dst) {
  const VF all_a = vf(f.a[0]), all_b = vf(f.b[0]);
  with_writer(finish, dst, [&](const auto& write) {
    for (int64_t r = 0; r < f.rows; ++r)
      for_elements(count, [&](int64_t c, auto n) {
        const int64_t at = r * count + c;
        VF x[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
        for_group(n, [&](int j, auto t) {
          const VF a = f.each ? load(f.a + c + j * kLanes, t) : all_a;
          const VF b = f.each ? load(f.b + c + j * kLanes, t) : all_b;
          x[j] = fma(read(at + j * kLanes, t), a, b);
        });
        write(at, n, x);
      });
  });
}

// The same for 8-bit values and results in steps of the output; a and b of each value in lane order.
template <Bytes kBytes, bool kEach>
TAE_VEC void affine_lanes(const Finish& finish, const Operand& row, const Factors& f, int64_t count,
                          void* dst) {
  const LaneReader<kBytes> read(row);
  const float *a = f.a, *b = f.b;  // not read again behind each store of bytes
  const VF all_a = vf(a[0]), all_b = vf(b[0]);
  const int64_t rows = f.rows;
  with_lane_writer(finish, dst, [&](const auto& write) {
    for (int64_t r = 0; r < rows; ++r)
      for_elements(count, [&](int64_t c, auto n) {
        VF x[4];
        read(r * count + c, n, x);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          const int64_t i = c + j * kLanes;
          x[j] = kEach ? fma(x[j], load(a + i, Full{}), load(b + i, Full{})) : fma(x[j], all_a, all_b);
        }
        write(r * count + c, n, x);
      });
  });
}

// Of |r|; NaN where it could be.
TAE_VEC float most_of(const Factors& f, int64_t count) {
  VF most = vf(0.f);
  for_vectors(f.each ? count : 1, [&](int64_t i, auto t) {
    const VF size = add(mul(vf(255.f), abs(load(f.a + i, t))), abs(load(f.b + i, t)));
    most = larger_or_nan(size, most);
  });
  return largest(most);
}

[[gnu::noinline]] void affine_run(const Finish& finish, const Operand& row, const Factors& f, int64_t count,
                                  float* scratch, void* dst) noexcept {
  const VI zero = vi(row.zero_point);
  if (is_quantized(row.dtype)) {
    const bool arranged = !f.each || scratch != nullptr;
    if (arranged && finish.inverse_scale == 1.f && fits_lanes(finish, most_of(f, count))) {
      Factors lanes = f;
      if (f.each) {
        const LaneRoom room(scratch, count);
        arrange_lanes(f.a, count, room.first);
        arrange_lanes(f.b, count, room.second);
        lanes.a = room.first;
        lanes.b = room.second;
      }
      with_bytes(row.dtype, [&](auto kind) {
        if (f.each)
          affine_lanes<decltype(kind)::value, true>(finish, row, lanes, count, dst);
        else
          affine_lanes<decltype(kind)::value, false>(finish, row, f, count, dst);
      });
      return;
    }
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
void byte_rows_entry(const RowNorm& norm, const RealRows& input, int64_t rows, float* scratch,
                     const NormOutput& out) {
  const DefaultFloatEnv env;
  byte_rows_run(norm, input, rows, scratch, out);
}

void real_rows_entry(const RowNorm& norm, const RealRows& input, const RealRows* other, int64_t rows,
                     float* scratch, const NormOutput& out) {
  const DefaultFloatEnv env;
  real_rows_run(norm, input, other, rows, scratch, out);
}

void affine_entry(const Finish& finish, const Operand& row, const float* a, const float* b, int64_t rows,
                  int64_t count, float* scratch, void* dst) {
  const DefaultFloatEnv env;
  affine_run(finish, row, {a, b, true, rows}, count, scratch, dst);
}

void affine_all_entry(const Finish& finish, const Operand& row, float a, float b, int64_t count, void* dst) {
  const DefaultFloatEnv env;
  affine_run(finish, row, {&a, &b, false, 1}, count, nullptr, dst);
}

constexpr NormKernels kNormKernels = {byte_rows_entry, real_rows_entry, sums_run,
                                      column_sums_run, affine_entry,    affine_all_entry};

}  // namespace
}  // namespace tae::kernels
