// The kernels of elementwise.h over vec.h's vectors, included once by elementwise.cpp and
// each elementwise__<isa>.cpp.
#pragma once

#include "kernels/elementwise.h"
#include "kernels/post_ops-inl.h"
#include "kernels/rows_run-inl.h"

namespace tae::kernels {
namespace {

template <typename Tail>
TAE_VEC VI load_value(const void* p, int64_t i, DType dtype, Tail t) {
  return dtype == DType::qs8 ? load_s8(static_cast<const int8_t*>(p) + i, t)
                             : load_u8(static_cast<const uint8_t*>(p) + i, t);
}

// Calls body(i, vector, tail) for up to 4 vectors of a group of n <= kGroup elements.
template <typename Body>
TAE_VEC void for_group(int64_t n, const Body& body) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const int64_t left = n - j * kLanes;
    if (left >= kLanes) {
      body(j, Full{});
    } else if (left > 0) {
      body(j, Part(left));
    }
  }
}

class Reader {
 public:
  explicit Reader(const Operand& o)
      : data_(o.data), dtype_(o.dtype), zero_point_(vi(o.zero_point)), scale_(vf(o.scale)) {}
  TAE_VEC void operator()(int64_t at, int64_t n, VF (&x)[4]) const {
    for_group(n, [&](int j, auto tail) {
      const VI q = load_value(data_, at + j * kLanes, dtype_, tail);
      x[j] = mul(to_float(sub(q, zero_point_)), scale_);
    });
  }

 private:
  const void* data_;
  DType dtype_;
  VI zero_point_;
  VF scale_;
};

class Writer {
 public:
  Writer(const Finish& f, void* dst)
      : finish_(f),
        dst_(dst),
        shift_(f.dtype == DType::qs8 ? 128 : 0),
        quantize_(f.inverse_scale, f.zero_point + shift_, 0, 255),
        flip_(set1_8(shift_)) {}
  TAE_VEC void operator()(int64_t at, int64_t n, VF (&x)[4]) const {
    for (int i = 0; i < finish_.num_post_ops; ++i) apply_unary(finish_.post_ops[i], x);
    if (is_quantized(finish_.dtype)) {
      uint8_t* dst = static_cast<uint8_t*>(dst_) + at;
      const VBytes bytes = xor_bytes(quantize_(x), flip_);
      if (n == kGroup) {
        store_bytes(dst, bytes);
      } else {
        store_bytes(dst, bytes, n);
      }
    } else if (finish_.dtype == DType::f32) {
      float* dst = static_cast<float*>(dst_) + at;
      for_group(n, [&](int j, auto tail) { store(dst + j * kLanes, x[j], tail); });
    } else {
      uint16_t* dst = static_cast<uint16_t*>(dst_) + at;
      for_group(n, [&](int j, auto tail) { store_bf16(dst + j * kLanes, x[j], tail); });
    }
  }

 private:
  const Finish& finish_;
  void* dst_;
  int32_t shift_;
  RunQuantizer quantize_;
  VBytes flip_;
};

// Calls body(at, n) for groups of kGroup elements and once for the rest.
template <typename Body>
TAE_VEC void for_elements(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kGroup <= count; i += kGroup) body(i, int64_t{kGroup});
  if (i < count) body(i, count - i);
}

[[gnu::noinline]] void requantize_run(const Finish& finish, const Operand& a, int64_t count,
                                      void* dst) noexcept {
  const Reader read(a);
  const Writer write(finish, dst);
  for_elements(count, [&](int64_t at, int64_t n) {
    VF x[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
    read(at, n, x);
    write(at, n, x);
  });
}

template <bool kMultiply>
[[gnu::noinline]] void binary_run(const Finish& finish, const Operand& a, const Operand& b, int64_t count,
                                  void* dst) noexcept {
  const Reader read_a(a), read_b(b);
  const Writer write(finish, dst);
  for_elements(count, [&](int64_t at, int64_t n) {
    VF x[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
    VF y[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
    read_a(at, n, x);
    read_b(at, n, y);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) x[j] = kMultiply ? mul(x[j], y[j]) : add(x[j], y[j]);
    write(at, n, x);
  });
}

void max_rows(const void* const* rows, int64_t count, int64_t channels, DType dtype, void* out) {
  uint8_t* dst = static_cast<uint8_t*>(out);
  const VBytes flip = set1_8(dtype == DType::qs8 ? 128 : 0);  // signed order in the u8 domain
  for_elements(channels, [&](int64_t at, int64_t n) {
    const auto load_row = [&](int64_t r) {
      const uint8_t* p = static_cast<const uint8_t*>(rows[r]) + at;
      return xor_bytes(n == kGroup ? load_bytes(p) : load_bytes(p, n), flip);
    };
    VBytes most = load_row(0);
    for (int64_t r = 1; r < count; ++r) most = max_u8(most, load_row(r));
    most = xor_bytes(most, flip);
    if (n == kGroup) {
      store_bytes(dst + at, most);
    } else {
      store_bytes(dst + at, most, n);
    }
  });
}

[[gnu::noinline]] void average_run(const Finish& finish, const Operand& row, const void* const* rows,
                                   int64_t count, int64_t channels, float divisor, void* dst) noexcept {
  const Writer write(finish, dst);
  const VI zero_sum = vi(static_cast<int32_t>(count * row.zero_point));
  const VF scale = vf(row.scale), parts = vf(divisor);
  for_elements(channels, [&](int64_t at, int64_t n) {
    VI sum[4] = {vi(0), vi(0), vi(0), vi(0)};
    for (int64_t r = 0; r < count; ++r)
      for_group(n, [&](int j, auto tail) {
        sum[j] = add(sum[j], load_value(rows[r], at + j * kLanes, row.dtype, tail));
      });
    VF x[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) x[j] = div(mul(to_float(sub(sum[j], zero_sum)), scale), parts);
    write(at, n, x);
  });
}

// The float environment is set outside: arithmetic could be moved across it.
void requantize_entry(const Finish& finish, const Operand& a, int64_t count, void* dst) {
  const DefaultFloatEnv env;
  requantize_run(finish, a, count, dst);
}

template <bool kMultiply>
void binary_entry(const Finish& finish, const Operand& a, const Operand& b, int64_t count, void* dst) {
  const DefaultFloatEnv env;
  binary_run<kMultiply>(finish, a, b, count, dst);
}

void average_entry(const Finish& finish, const Operand& row, const void* const* rows, int64_t count,
                   int64_t channels, float divisor, void* dst) {
  const DefaultFloatEnv env;
  average_run(finish, row, rows, count, channels, divisor, dst);
}

constexpr ElementwiseKernels kElementwiseKernels = {requantize_entry, binary_entry<false>, binary_entry<true>,
                                                    max_rows, average_entry};

}  // namespace
}  // namespace tae::kernels
