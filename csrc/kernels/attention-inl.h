// The kernels of attention.h over vec.h's vectors, included once by attention.cpp and
// each attention__<isa>.cpp.
#pragma once

#include <cmath>

#include "kernels/attention.h"
#include "kernels/element_run-inl.h"

namespace tae::kernels {
namespace {

// Scores to x; the largest of them, NaN for a row with a NaN or +inf.
TAE_VEC float scores(const ScoreRow& row, float* x) {
  const VI row_term = vi(row.row_term);
  const VF scale = vf(row.scale);
  VF most = vf(-INFINITY);
  VMask bad = no_lane();
  const auto take = [&](int64_t i, auto tail) __attribute__((always_inline)) {
    const VI sum = sub(load(row.raw + i, tail), add(load(row.column_term + i, tail), row_term));
    VF v = mul(to_float(sum), scale);
    if (row.mask != nullptr) v = add(v, load(row.mask + i, tail));
    store(x + i, v, tail);
    return v;
  };
  int64_t i = 0;
  for (; i + kLanes <= row.count; i += kLanes) {
    const VF v = take(i, Full{});
    bad = mask_or(bad, is_nan(v));
    most = max(v, most);
  }
  float result = reduce_max(most);
  bool no_number = any(bad);
  if (i < row.count) take(i, Part(row.count - i));  // the lanes behind a tail must not win
  for (; i < row.count; ++i) {
    no_number = no_number || std::isnan(x[i]);
    result = x[i] > result ? x[i] : result;
  }
  return no_number || result == INFINITY ? NAN : result;
}

[[gnu::noinline]] int32_t weights_run(const ScoreRow& row, uint8_t* dst, int64_t room) noexcept {
  float* x = row.scratch;
  const float most = scores(row, x);
  if (!(most > -INFINITY)) {
    std::memset(dst, 0, static_cast<size_t>(room));
    return std::isnan(most) ? -1 : 0;
  }
  const VF shift = vf(most), steps = vf(255.f);
  const VI zero = vi(0);
  VI sum = vi(0);
  for_elements(row.count, [&](int64_t at, auto n) {
    VI q[4] = {zero, zero, zero, zero};
    for_group(n, [&](int j, auto tail) {
      const VF e = exp_nonpositive(sub(load(x + at + j * kLanes, tail), shift));
      q[j] = to_int(mul(e, steps));
    });
    const VBytes bytes = pack_u8(q[0], q[1], q[2], q[3], zero);
    if (n == kGroup) {
      sum = sum_bytes(sum, bytes);
      store_bytes(dst + at, bytes);
    } else {
      sum = sum_bytes(sum, keep_bytes(bytes, n));
      store_bytes(dst + at, bytes, n);
    }
  });
  std::memset(dst + row.count, 0, static_cast<size_t>(room - row.count));
  return static_cast<int32_t>(reduce_sum32(sum));
}

[[gnu::noinline]] void values_run(const Finish& finish, const ValueRow& row, void* dst) noexcept {
  const VI zero_point = vi(row.zero_point * row.weights);
  const float each = row.weights > 0 ? row.scale / static_cast<float>(row.weights) : 0.f;
  const VF factor = vf(row.weights < 0 ? NAN : each);
  with_writer(finish, dst, [&](const auto& write) {
    for_elements(row.count, [&](int64_t at, auto n) {
      VF x[4] = {vf(0.f), vf(0.f), vf(0.f), vf(0.f)};
      for_group(n, [&](int j, auto tail) {
        x[j] = mul(to_float(sub(load(row.raw + at + j * kLanes, tail), zero_point)), factor);
      });
      write(at, n, x);
    });
  });
}

int32_t weights_entry(const ScoreRow& row, uint8_t* dst, int64_t room) {
  const DefaultFloatEnv env;
  return weights_run(row, dst, room);
}

void values_entry(const Finish& finish, const ValueRow& row, void* dst) {
  const DefaultFloatEnv env;
  values_run(finish, row, dst);
}

constexpr AttentionKernels kAttentionKernels = {weights_entry, values_entry};

}  // namespace
}  // namespace tae::kernels
