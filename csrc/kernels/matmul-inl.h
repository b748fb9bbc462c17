// From accumulators to the output over vec.h's vectors, included once by matmul.cpp and
// each matmul__<isa>.cpp; see matmul.h.
#pragma once

#include "kernels/epilogue.h"
#include "kernels/matmul.h"
#include "kernels/post_ops-inl.h"
#include "kernels/requantization-inl.h"
#include "kernels/rows_run-inl.h"

namespace tae::kernels {
namespace {

template <DType kOut>
TAE_VEC void store_group(const VF (&x)[4], void* output, int64_t at, int64_t n) {
  for_group(n, [&](int i, auto tail) {
    if constexpr (kOut == DType::f32) {
      store(static_cast<float*>(output) + at + i * kLanes, x[i], tail);
    } else {
      store_bf16(static_cast<uint16_t*>(output) + at + i * kLanes, x[i], tail);
    }
  });
}

// Rows share column terms only, which stay in L1: groups of 4 vectors of one row, so
// that quantized outputs are written 4 vectors at a time.
template <DType kOut, bool kFast>
[[gnu::noinline]] void finish_rows(const MatmulFinish& f, const MatmulTile& t) noexcept {
  const int32_t shift = f.dtype == DType::qs8 ? 128 : 0;  // to the u8 domain and back
  EpilogueParams p;
  p.output_dtype = DType::qu8;
  p.output_scale = f.output_scale;
  p.output_zero_point = f.output_zero_point + shift;
  const Requantization requantization = is_quantized(kOut) ? make_requantization(p) : Requantization{};
  const VBytes flip = set1_8(shift);
  const VF scale = vf(f.scale);
  for (int64_t r = 0; r < t.rows; ++r) {
    const int32_t* raw = t.raw + r * t.raw_stride;
    const VI row_term = vi(t.row_term[r]);
    for (int64_t c = 0; c < t.cols; c += kGroup) {
      const int64_t n = t.cols - c < kGroup ? t.cols - c : kGroup;
      VF x[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
      const auto take = [&](int i, auto tail) __attribute__((always_inline)) {
        const int64_t at = c + i * kLanes;
        const VI term = add(load(t.column_term + at, tail), row_term);
        x[i] = mul(to_float(sub(load(raw + at, tail), term)), scale);
      };
      for_group(n, take);
      for (int op = 0; op < f.num_post_ops; ++op) apply_unary(f.post_ops[op], x);
      const int64_t at = r * t.output_stride + c;
      if constexpr (is_quantized(kOut)) {
        VI q[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) q[i] = requantize<kFast>(x[i], requantization);
        const VBytes bytes = xor_bytes(pack_u8(q[0], q[1], q[2], q[3], vi(0)), flip);
        uint8_t* out = static_cast<uint8_t*>(t.output) + at;
        store_group_bytes(out, bytes, n);
      } else {
        store_group<kOut>(x, t.output, at, n);
      }
    }
  }
}

// Quantized outputs differ in constants only, so both run the qu8 instance.
void finish(const MatmulFinish& f, const MatmulTile& t) {
  const DefaultFloatEnv env;
  if (f.dtype == DType::f32) {
    finish_rows<DType::f32, false>(f, t);
  } else if (f.dtype == DType::bf16) {
    finish_rows<DType::bf16, false>(f, t);
  } else if (fast_division(f.output_scale)) {
    finish_rows<DType::qu8, kHasFma>(f, t);
  } else {
    finish_rows<DType::qu8, false>(f, t);
  }
}

}  // namespace
}  // namespace tae::kernels
