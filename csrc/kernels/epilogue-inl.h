// The epilogue over vec.h's vectors, included once by epilogue.cpp and each
// epilogue__<isa>.cpp; see epilogue.h for the rule and the layouts.
//
// Rows go in blocks of 4 and columns in vectors, so that the column parameters are
// loaded once for 4 rows while the rows of a block still stream through few pages.
#pragma once

#include "kernels/epilogue.h"
#include "kernels/epilogue_plain-inl.h"
#include "kernels/post_ops-inl.h"
#include "kernels/requantization-inl.h"
#include "kernels/vec.h"
#include "kernels/vec_float_env.h"

namespace tae::kernels {
namespace {

// f32(acc) * (s_x * s_w) + bias for one row block.
template <int kRows>
struct RowValues {
  VF scale[kRows];
  VI zero_point[kRows];
  VI weight_term[kRows];  // sum - k * zp: what one unit of zp_w subtracts
};

template <int kRows>
TAE_VEC RowValues<kRows> load_rows(const EpilogueParams& p, const EpilogueTile& t, int64_t r0) {
  RowValues<kRows> rows;
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
    const RowParams& row = t.row[(r0 + i) * t.row_step];
    const uint32_t zp = static_cast<uint32_t>(row.zero_point);
    rows.scale[i] = vf(row.scale);
    rows.zero_point[i] = vi(row.zero_point);
    rows.weight_term[i] =
        vi(static_cast<int32_t>(static_cast<uint32_t>(row.sum) - static_cast<uint32_t>(p.k) * zp));
  }
  return rows;
}

template <typename Tail>
TAE_VEC VF load_other(const EpilogueParams& p, const void* base, int64_t index, Tail tail) {
  switch (p.other_dtype) {
    case DType::f32:
      return load(static_cast<const float*>(base) + index, tail);
    case DType::bf16:
      return load_bf16(static_cast<const uint16_t*>(base) + index, tail);
    case DType::qs8: {
      const VI q = load_s8(static_cast<const int8_t*>(base) + index, tail);
      return mul(to_float(sub(q, vi(p.other_zero_point))), vf(p.other_scale));
    }
    default: {
      const VI q = load_u8(static_cast<const uint8_t*>(base) + index, tail);
      return mul(to_float(sub(q, vi(p.other_zero_point))), vf(p.other_scale));
    }
  }
}

template <int kRows, typename Tail>
TAE_VEC void apply_post_ops(const EpilogueParams& p, const EpilogueTile& t, int64_t r0, int64_t c,
                            VF (&x)[kRows], Tail tail) {
  for (int op = 0; op < p.num_post_ops; ++op) {
    if (p.post_ops[op].kind == PostOp::Kind::add) {
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i)
        x[i] = add(x[i], load_other(p, t.other, (r0 + i) * t.other_stride + c, tail));
    } else if (p.post_ops[op].kind == PostOp::Kind::prelu) {
      const VF slope = load(p.slope + t.n0 + c, tail);
      for (VF& v : x) v = select(less(v, vf(0.f)), mul(slope, v), v);
    } else if (p.post_ops[op].kind == PostOp::Kind::affine) {
      const VF weight = load(p.affine_weight + t.n0 + c, tail), bias = load(p.affine_bias + t.n0 + c, tail);
      for (VF& v : x) v = add(mul(v, weight), bias);
    } else {
      apply_unary(p.post_ops[op], x);
    }
  }
}

// kUniform: all rows share one RowParams (static quantization), whose products with
// the column parameters are then computed once per column.
template <DType kOut, bool kFast, bool kUniform, int kRows, typename Tail>
TAE_VEC void column_vector(const EpilogueParams& p, const EpilogueTile& t,
                           const Requantization& requantization, const RowValues<kRows>& rows, int64_t r0,
                           int64_t c, Tail tail) {
  const int64_t n = t.n0 + c;
  const VF weight_scale = p.weight_scale_stride == 0 ? vf(p.weight_scale[0]) : load(p.weight_scale + n, tail);
  const VI column_sum = load(p.column_sum + n, tail);
  const bool has_weight_zero_point = p.weight_zero_point != nullptr;
  const VI weight_zero_point = has_weight_zero_point ? load(p.weight_zero_point + n, tail) : vi(0);
  const auto offset = [&](int i) {
    const VI zp = mul(rows.zero_point[i], column_sum);
    return has_weight_zero_point ? add(zp, mul(rows.weight_term[i], weight_zero_point)) : zp;
  };
  VI shared_offset = vi(0);
  VF shared_scale = weight_scale;
  if constexpr (kUniform) {
    shared_offset = offset(0);
    shared_scale = mul(rows.scale[0], weight_scale);
  }

  VF x[kRows];
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
    const VI raw = load(t.raw + (r0 + i) * t.raw_stride + c, tail);
    if constexpr (kUniform) {
      x[i] = mul(to_float(sub(raw, shared_offset)), shared_scale);
    } else {
      x[i] = mul(to_float(sub(raw, offset(i))), mul(rows.scale[i], weight_scale));
    }
  }
  if (p.bias != nullptr) {
    const VF bias = load(p.bias + n, tail);
    for (VF& v : x) v = add(v, bias);
  }
  apply_post_ops(p, t, r0, c, x, tail);

#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
    const int64_t at = (r0 + i) * t.output_stride + c;
    if constexpr (kOut == DType::f32) {
      store(static_cast<float*>(t.output) + at, x[i], tail);
    } else if constexpr (kOut == DType::bf16) {
      store_bf16(static_cast<uint16_t*>(t.output) + at, x[i], tail);
    } else {
      store_low8(static_cast<uint8_t*>(t.output) + at, requantize<kFast>(x[i], requantization), tail);
    }
  }
}

template <DType kOut, bool kFast, bool kUniform, int kRows>
TAE_VEC void row_block(const EpilogueParams& p, const EpilogueTile& t, const Requantization& requantization,
                       int64_t r0) {
  const RowValues<kRows> rows = load_rows<kRows>(p, t, r0);
  int64_t c = 0;
  for (; c + kLanes <= t.cols; c += kLanes)
    column_vector<kOut, kFast, kUniform>(p, t, requantization, rows, r0, c, Full{});
  if (c < t.cols) column_vector<kOut, kFast, kUniform>(p, t, requantization, rows, r0, c, Part(t.cols - c));
}

template <DType kOut, bool kFast, bool kUniform>
[[gnu::noinline]] void all_rows(const EpilogueParams& params, const EpilogueTile& tile) noexcept {
  // Local copies: stores through the output pointer cannot alias them.
  const EpilogueParams p = params;
  const EpilogueTile t = tile;
  const Requantization requantization = is_quantized(kOut) ? make_requantization(p) : Requantization{};
  int64_t r = 0;
  for (; r + kRowBlock <= t.rows; r += kRowBlock)
    row_block<kOut, kFast, kUniform, kRowBlock>(p, t, requantization, r);
  for (; r < t.rows; ++r) row_block<kOut, kFast, kUniform, 1>(p, t, requantization, r);
}

template <DType kOut, bool kFast>
TAE_VEC void run_dtype(const EpilogueParams& p, const EpilogueTile& t) {
  if (t.row_step == 0) {
    all_rows<kOut, kFast, true>(p, t);
  } else {
    all_rows<kOut, kFast, false>(p, t);
  }
}

// Quantized outputs differ in constants only, so both run the qu8 instance.
TAE_VEC void run_epilogue(const EpilogueParams& p, const EpilogueTile& t) {
  const DefaultFloatEnv env;
  if (p.output_dtype == DType::f32) {
    run_dtype<DType::f32, false>(p, t);
  } else if (p.output_dtype == DType::bf16) {
    run_dtype<DType::bf16, false>(p, t);
  } else if (fast_division(p.output_scale)) {
    if (!run_plain(p, t)) run_dtype<DType::qu8, kHasFma>(p, t);
  } else {
    run_dtype<DType::qu8, false>(p, t);
  }
}

}  // namespace
}  // namespace tae::kernels
