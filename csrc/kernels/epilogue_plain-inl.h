// What most networks have of epilogue-inl.h: 8-bit output of static qparams after nothing,
// relu or clamp, and after the sum with an 8-bit tensor. Nothing else is kept in registers,
// so that all of it stays there.
#pragma once

#include <cmath>

#include "kernels/epilogue.h"
#include "kernels/requantization-inl.h"
#include "kernels/vec.h"

namespace tae::kernels {
namespace {

constexpr int kRowBlock = 4;  // rows that one load of the column parameters serves

enum class Plain { no, bounds, add_u8, add_s8 };

TAE_VEC bool is_bound(const PostOp& op) {
  return op.kind == PostOp::Kind::relu || op.kind == PostOp::Kind::clamp;
}

TAE_VEC Plain plain_form(const EpilogueParams& p, const EpilogueTile& t) {
  if (t.row_step != 0 || p.weight_zero_point != nullptr) return Plain::no;
  const bool adds = p.num_post_ops > 0 && p.post_ops[0].kind == PostOp::Kind::add;
  const int rest = p.num_post_ops - (adds ? 1 : 0);
  if (rest > 1 || (rest == 1 && !is_bound(p.post_ops[p.num_post_ops - 1]))) return Plain::no;
  if (!adds) return Plain::bounds;
  if (p.other_dtype == DType::qu8) return Plain::add_u8;
  return p.other_dtype == DType::qs8 ? Plain::add_s8 : Plain::no;
}

struct Bounds {
  VF low, high;
};

TAE_VEC Bounds make_bounds(const EpilogueParams& p) {
  const PostOp* const last = p.num_post_ops > 0 ? &p.post_ops[p.num_post_ops - 1] : nullptr;
  const bool clamps = last != nullptr && last->kind == PostOp::Kind::clamp;
  if (clamps) return {vf(last->alpha), vf(last->beta)};
  const bool relu = last != nullptr && last->kind == PostOp::Kind::relu;
  return {vf(relu ? 0.f : -INFINITY), vf(INFINITY)};
}

template <Plain kForm, int kRows>
TAE_VEC void plain_row_block(const EpilogueParams& p, const EpilogueTile& t, const Requantization& q,
                             const Bounds& bounds, int64_t r0) {
  const VF row_scale = vf(t.row->scale), other_scale = vf(p.other_scale);
  const VI zero_point = vi(t.row->zero_point), other_zero_point = vi(p.other_zero_point);
  const int32_t* const raw = t.raw + r0 * t.raw_stride;
  uint8_t* const output = static_cast<uint8_t*>(t.output) + r0 * t.output_stride;
  const uint8_t* const other = static_cast<const uint8_t*>(t.other) + r0 * t.other_stride;
  const auto columns = [&](int64_t c, auto tail) {
    const int64_t n = t.n0 + c;
    const VF weight_scale =
        p.weight_scale_stride == 0 ? vf(p.weight_scale[0]) : load(p.weight_scale + n, tail);
    const VF scale = mul(row_scale, weight_scale);
    const VI offset = mul(zero_point, load(p.column_sum + n, tail));
    const VF bias = p.bias == nullptr ? vf(-0.f) : load(p.bias + n, tail);
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      VF x = mul(to_float(sub(load(raw + i * t.raw_stride + c, tail), offset)), scale);
      x = add(x, bias);
      if constexpr (kForm != Plain::bounds) {
        const uint8_t* const at = other + i * t.other_stride + c;
        VI o;
        if constexpr (kForm == Plain::add_u8) o = load_u8(at, tail);
        if constexpr (kForm == Plain::add_s8) o = load_s8(reinterpret_cast<const int8_t*>(at), tail);
        x = add(x, mul(to_float(sub(o, other_zero_point)), other_scale));
      }
      x = min(bounds.high, max(bounds.low, x));
      store_low8(output + i * t.output_stride + c, requantize<true>(x, q), tail);
    }
  };
  int64_t c = 0;
  for (; c + kLanes <= t.cols; c += kLanes) columns(c, Full{});
  if (c < t.cols) columns(c, Part(t.cols - c));
}

template <Plain kForm>
[[gnu::noinline]] void plain_rows(const EpilogueParams& params, const EpilogueTile& tile) noexcept {
  const EpilogueParams p = params;
  const EpilogueTile t = tile;
  const Requantization requantization = make_requantization(p);
  const Bounds bounds = make_bounds(p);
  int64_t r = 0;
  for (; r + kRowBlock <= t.rows; r += kRowBlock)
    plain_row_block<kForm, kRowBlock>(p, t, requantization, bounds, r);
  for (; r < t.rows; ++r) plain_row_block<kForm, 1>(p, t, requantization, bounds, r);
}

TAE_VEC bool run_plain(const EpilogueParams& p, const EpilogueTile& t) {
  switch (plain_form(p, t)) {
    case Plain::bounds:
      plain_rows<Plain::bounds>(p, t);
      return true;
    case Plain::add_u8:
      plain_rows<Plain::add_u8>(p, t);
      return true;
    case Plain::add_s8:
      plain_rows<Plain::add_s8>(p, t);
      return true;
    default:
      return false;
  }
}

}  // namespace
}  // namespace tae::kernels
