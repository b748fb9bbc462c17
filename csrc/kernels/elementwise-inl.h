// The kernels of elementwise.h over vec.h's vectors, included once by elementwise.cpp and
// each elementwise__<isa>.cpp; those of pooling are in pool-inl.h.
#pragma once

#include "kernels/element_run-inl.h"
#include "kernels/elementwise.h"
#include "kernels/fetch_ahead.h"
#include "kernels/pool-inl.h"

namespace tae::kernels {
namespace {

template <typename T>
[[gnu::noinline]] void quantize_reals(const Finish& finish, const T* src, int64_t count, void* dst) noexcept {
  with_writer(finish, dst, [&](const auto& write) {
    for_elements(count, [&](int64_t at, auto n) {
      VF x[4];
      if (n == kGroup) {
        load_group(src + at, x);
      } else {
        load_group(src + at, n, x);
      }
      write(at, n, x);
    });
  });
}

[[gnu::noinline]] void requantize_run(const Finish& finish, const Operand& a, int64_t count,
                                      void* dst) noexcept {
  const VF scale = vf(a.scale), inverse = vf(finish.inverse_scale);
  with_bytes(a.dtype, [&](auto kind) {
    if (fits_lanes(finish, kFarthest * a.scale * finish.inverse_scale)) {
      const LaneReader<decltype(kind)::value> read_lanes(a);
      with_lane_writer(finish, dst, [&](const auto& write) {
        for_elements(count, [&](int64_t at, auto n) {
          VF x[4];
          read_lanes(at, n, x);
          for (VF& v : x) v = mul(mul(v, scale), inverse);
          write(at, n, x);
        });
      });
      return;
    }
    const Reader<decltype(kind)::value> read(a);
    with_writer(finish, dst, [&](const auto& write) {
      for_elements(count, [&](int64_t at, auto n) {
        VF x[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
        read(at, n, x);
        write(at, n, x);
      });
    });
  });
}

template <bool kMultiply, Bytes kBytes>
TAE_VEC void binary_values(const Finish& finish, const Operand& a, const Operand& b, int64_t count,
                           void* dst) {
  const Reader<kBytes> read_a(a), read_b(b);
  with_writer(finish, dst, [&](const auto& write) {
    for_elements(count, [&](int64_t at, auto n) {
      VF x[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
      VF y[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
      read_a(at, n, x);
      read_b(at, n, y);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) x[j] = kMultiply ? mul(x[j], y[j]) : add(x[j], y[j]);
      write(at, n, x);
    });
  });
}

template <bool kMultiply, Bytes kLeft, Bytes kRight>
TAE_VEC void binary_lanes(const Finish& finish, const Operand& a, const Operand& b, int64_t count,
                          void* dst) {
  const LaneReader<kLeft> read_a(a);
  const LaneReader<kRight> read_b(b);
  const VF scale_a = vf(a.scale), scale_b = vf(b.scale), inverse = vf(finish.inverse_scale);
  with_lane_writer(finish, dst, [&](const auto& write) {
    for_elements(count, [&](int64_t at, auto n) {
      VF x[4], y[4];
      read_a(at, n, x);
      read_b(at, n, y);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const VF p = mul(x[j], scale_a), q = mul(y[j], scale_b);
        x[j] = mul(kMultiply ? mul(p, q) : add(p, q), inverse);
      }
      write(at, n, x);
    });
  });
}

template <bool kMultiply>
[[gnu::noinline]] void lanes_run(const Finish& finish, const Operand& a, const Operand& b, int64_t count,
                                 void* dst) noexcept {
  with_bytes(a.dtype, [&](auto left) {
    with_bytes(b.dtype, [&](auto right) {
      binary_lanes<kMultiply, decltype(left)::value, decltype(right)::value>(finish, a, b, count, dst);
    });
  });
}

template <bool kMultiply>
[[gnu::noinline]] void binary_run(const Finish& finish, const Operand& a, const Operand& b, int64_t count,
                                  void* dst) noexcept {
  const float p = kFarthest * a.scale, q = kFarthest * b.scale;
  if (fits_lanes(finish, (kMultiply ? p * q : p + q) * finish.inverse_scale)) {
    lanes_run<kMultiply>(finish, a, b, count, dst);
  } else if (a.dtype != b.dtype) {
    binary_values<kMultiply, Bytes::any>(finish, a, b, count, dst);
  } else if (a.dtype == DType::qs8) {
    binary_values<kMultiply, Bytes::s8>(finish, a, b, count, dst);
  } else {
    binary_values<kMultiply, Bytes::u8>(finish, a, b, count, dst);
  }
}

void clamp_bytes(const void* source, DType dtype, int32_t lo, int32_t hi, int64_t count, void* out) {
  const uint8_t* src = static_cast<const uint8_t*>(source);
  uint8_t* dst = static_cast<uint8_t*>(out);
  const int32_t shift = dtype == DType::qs8 ? 128 : 0;
  const VBytes flip = set1_8(shift), low = set1_8(lo + shift), high = set1_8(hi + shift);
  const auto clamp = [&](int64_t at, auto n) {
    const VBytes x = load_group_bytes(src + at, n);
    const VBytes y = xor_bytes(clamp_u8(xor_bytes(x, flip), low, high), flip);
    store_group_bytes(dst + at, y, n);
  };
  const int64_t fetching = kGroup == 64 ? lines_before_last(count) : 0;
  for_elements(fetching, [&](int64_t at, auto) {
    fetch_ahead(src + at);
    fetch_ahead_to_write(dst + at);
    clamp(at, Whole());
  });
  for_elements(count - fetching, [&](int64_t at, auto n) { clamp(fetching + at, n); });
}

[[gnu::noinline]] void blend_run(const Finish& finish, const Operand& row, const void* const* rows,
                                 const float* down, const float* along, int64_t channels,
                                 void* dst) noexcept {
  const VI zero = vi(row.zero_point);
  const VF scale = vf(row.scale);
  const VF weights[4] = {vf(down[0] * along[0]), vf(down[0] * along[1]), vf(down[1] * along[0]),
                         vf(down[1] * along[1])};
  with_bytes(row.dtype, [&](auto kind) {
    with_writer(finish, dst, [&](const auto& write) {
      for_elements(channels, [&](int64_t at, auto n) {
        VF x[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
        for_group(n, [&](int j, auto tail) {
          const auto value = [&](int r) {
            const VI q = load_value<decltype(kind)::value>(rows[r], at + j * kLanes, row.dtype, tail);
            return mul(to_float(sub(q, zero)), weights[r]);
          };
          x[j] = mul(add(add(value(0), value(1)), add(value(2), value(3))), scale);
        });
        write(at, n, x);
      });
    });
  });
}

// The float environment is set outside: arithmetic could be moved across it.
void requantize_entry(const Finish& finish, const Operand& a, int64_t count, void* dst) {
  const DefaultFloatEnv env;
  if (a.dtype == DType::f32) {
    quantize_reals(finish, static_cast<const float*>(a.data), count, dst);
  } else if (a.dtype == DType::bf16) {
    quantize_reals(finish, static_cast<const uint16_t*>(a.data), count, dst);
  } else {
    requantize_run(finish, a, count, dst);
  }
  finish_streams(finish);
}

void blend_entry(const Finish& finish, const Operand& row, const void* const* rows, const float* down,
                 const float* along, int64_t channels, void* dst) {
  const DefaultFloatEnv env;
  blend_run(finish, row, rows, down, along, channels, dst);
}

template <bool kMultiply>
void binary_entry(const Finish& finish, const Operand& a, const Operand& b, int64_t count, void* dst) {
  const DefaultFloatEnv env;
  binary_run<kMultiply>(finish, a, b, count, dst);
  finish_streams(finish);
}

void average_entry(const Finish& finish, const Operand& row, const void* const* rows, int64_t count,
                   int64_t outputs, int64_t channels, float divisor, void* dst) {
  const DefaultFloatEnv env;
  average_run(finish, row, rows, count, outputs, channels, divisor, dst);
}

constexpr ElementwiseKernels kElementwiseKernels = {
    requantize_entry, binary_entry<false>, binary_entry<true>, clamp_bytes, max_rows,
    max_windows,      max_areas,           average_entry,      blend_entry};

}  // namespace
}  // namespace tae::kernels
