// The kernels of norm.h over vec.h's vectors, included once by norm.cpp and each
// norm__<isa>.cpp.
#pragma once

#include "kernels/norm_rows-inl.h"

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

// Bytes to bytes in steps of the output; `lanes` as f in lane order.
template <Bytes kBytes>
TAE_VEC void affine_steps(const Finish& finish, const Operand& row, const Factors& f, const Factors& lanes,
                          int64_t count, void* dst) {
  if (!fits_lanes(finish, most_of(f, count))) {
    const VI zero = vi(row.zero_point);
    affine_values(
        finish, f, count,
        [&](int64_t i, auto t) { return to_float(sub(load_value<kBytes>(row.data, i, row.dtype, t), zero)); },
        dst);
  } else if (f.each) {
    affine_lanes<kBytes, true>(finish, row, lanes, count, dst);
  } else {
    affine_lanes<kBytes, false>(finish, row, lanes, count, dst);
  }
}

// Words where a channel has some, else floats.
template <Bytes kBytes>
TAE_VEC void affine_channels(const Finish& finish, const Operand& row, const Factors& f, int64_t count,
                             float* scratch, uint8_t* dst) {
  const LaneRoom room(scratch, count);
  arrange_lanes(f.a, count, room.first);
  arrange_lanes(f.b, count, room.second);
  const ChannelWords w = channel_room(room.words, room.values);
  arrange_channel_words(finish, row, room.first, room.second, room.values, w);
  const size_t n = static_cast<size_t>(count);
  if (std::memchr(w.used, 0, n) == nullptr) {
    affine_words<kBytes, false>(finish, row, w, f.rows, count, dst);
    return;
  }
  const bool mixed = std::memchr(w.used, 255, n) != nullptr;
  Finish floats = finish;
  floats.streams = finish.streams && !mixed;
  affine_steps<kBytes>(floats, row, f, {room.first, room.second, true, f.rows}, count, dst);
  if (mixed) affine_words<kBytes, true>(floats, row, w, f.rows, count, dst);
}

[[gnu::noinline]] void steps_run(const Finish& finish, const Operand& row, const Factors& f, int64_t count,
                                 float* scratch, uint8_t* dst) noexcept {
  with_bytes(row.dtype, [&](auto kind) {
    constexpr Bytes kBytes = decltype(kind)::value;
    if (f.each) {
      affine_channels<kBytes>(finish, row, f, count, scratch, dst);
    } else if (!affine_all_words<kBytes>(finish, row, f.a[0], f.b[0], count, dst)) {
      affine_steps<kBytes>(finish, row, f, f, count, dst);
    }
  });
}

[[gnu::noinline]] void affine_run(const Finish& finish, const Operand& row, const Factors& f, int64_t count,
                                  float* scratch, void* dst) noexcept {
  if (is_quantized(row.dtype)) {
    if (takes_words(finish, row.dtype)) {
      steps_run(finish, row, f, count, scratch, static_cast<uint8_t*>(dst));
      return;
    }
    const VI zero = vi(row.zero_point);
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
  finish_streams(out.finish);
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
  finish_streams(finish);
}

void affine_all_entry(const Finish& finish, const Operand& row, float a, float b, int64_t count, void* dst) {
  const DefaultFloatEnv env;
  affine_run(finish, row, {&a, &b, false, 1}, count, nullptr, dst);
  finish_streams(finish);
}

constexpr NormKernels kNormKernels = {byte_rows_entry, real_rows_entry, sums_run,
                                      column_sums_run, affine_entry,    affine_all_entry};

}  // namespace
}  // namespace tae::kernels
