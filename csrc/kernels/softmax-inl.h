// Softmax over vec.h's vectors, included once by softmax.cpp and each softmax__<isa>.cpp.
#pragma once

#include <cmath>

#include "kernels/post_ops-inl.h"
#include "kernels/rows_run-inl.h"
#include "kernels/softmax.h"

namespace tae::kernels {
namespace {

// Calls body(i, tail) for each vector of a row: element i on.
template <typename Body>
TAE_VEC void for_row(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, Full{});
  if (i < count) body(i, Part(count - i));
}

// Partial sums by index modulo 16, whatever the width of a vector.
class Sum {
 public:
  TAE_VEC void add_at(int64_t i, VF x) {
    if constexpr (kVectors == 1) {
      part_[0] = add(part_[0], x);
    } else {
      VF& part = part_[i / kLanes % kVectors];
      part = add(part, x);
    }
  }
  TAE_VEC float total() const {
    float s[16];
    for (int v = 0; v < kVectors; ++v) store(s + v * kLanes, part_[v], Full{});
    for (int width = 8; width >= 1; width /= 2)
      for (int i = 0; i < width; ++i) s[i] += s[i + width];
    return s[0];
  }

 private:
  static constexpr int kVectors = 16 / kLanes;
  VF part_[kVectors] = {};
};

// x of the row to scratch; the largest of them, NaNs passed over.
template <typename Read>
TAE_VEC float read_row(const Read& read, const float* mask, int64_t count, float* scratch) {
  VF most = vf(-INFINITY);
  const auto take = [&](int64_t i, auto tail) __attribute__((always_inline)) {
    VF x = read(i, tail);
    if (mask != nullptr) x = add(x, load(mask + i, tail));
    store(scratch + i, x, tail);
    return x;
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) most = max(take(i, Full{}), most);
  float result = reduce_max(most);
  // The lanes behind a tail must not win.
  if (i < count) take(i, Part(count - i));
  for (; i < count; ++i) result = scratch[i] > result ? scratch[i] : result;
  return result;
}

// e of the row to scratch, in place of x, and their sum.
TAE_VEC float exponentials(float most, int64_t count, float* scratch) {
  Sum sum;
  const VF shift = vf(most);
  for_row(count, [&](int64_t i, auto tail) {
    const VF e = exp_nonpositive(sub(load(scratch + i, tail), shift));
    store(scratch + i, e, tail);
    sum.add_at(i, load(scratch + i, tail));  // 0 behind the end
  });
  return sum.total();
}

template <typename Read>
[[gnu::noinline]] void softmax_row(const SoftmaxParams& p, const Read& read, const float* mask, int64_t count,
                                   float* scratch, void* dst) noexcept {
  const float most = read_row(read, mask, count, scratch);
  const float sum = exponentials(most, count, scratch);
  if (is_quantized(p.output_dtype)) {
    const int32_t shift = p.output_dtype == DType::qs8 ? 128 : 0;  // to the u8 domain and back
    const RunQuantizer quantize(p.inverse_scale / sum, p.output_zero_point + shift, 0, 255);
    const VBytes flip = set1_8(shift);
    uint8_t* out = static_cast<uint8_t*>(dst);
    VF x[4];
    int64_t i = 0;
    for (; i + kGroup <= count; i += kGroup) {
      load_group(scratch + i, x);
      store_bytes(out + i, xor_bytes(quantize(x), flip));
    }
    if (i < count) {
      load_group(scratch + i, count - i, x);
      store_bytes(out + i, xor_bytes(quantize(x), flip), count - i);
    }
    return;
  }
  const VF factor = vf(1.f / sum);
  for_row(count, [&](int64_t i, auto tail) {
    const VF y = mul(load(scratch + i, tail), factor);
    if (p.output_dtype == DType::f32) {
      store(static_cast<float*>(dst) + i, y, tail);
    } else {
      store_bf16(static_cast<uint16_t*>(dst) + i, y, tail);
    }
  });
}

void softmax(const SoftmaxParams& p, const void* src, const float* mask, int64_t count, float* scratch,
             void* dst) {
  const DefaultFloatEnv env;
  const VF scale = vf(p.input_scale);
  const VI zero_point = vi(p.input_zero_point);
  const auto real = [&](VI q)
                        __attribute__((always_inline)) { return mul(to_float(sub(q, zero_point)), scale); };
  const auto run = [&](const auto& read) { softmax_row(p, read, mask, count, scratch, dst); };
  switch (p.input_dtype) {
    case DType::qs8:
      return run([&](int64_t i, auto tail) __attribute__((always_inline)) {
        return real(load_s8(static_cast<const int8_t*>(src) + i, tail));
      });
    case DType::qu8:
      return run([&](int64_t i, auto tail) __attribute__((always_inline)) {
        return real(load_u8(static_cast<const uint8_t*>(src) + i, tail));
      });
    case DType::bf16:
      return run([&](int64_t i, auto tail) __attribute__((always_inline)) {
        return mul(load_bf16(static_cast<const uint16_t*>(src) + i, tail), scale);
      });
    default:
      return run([&](int64_t i, auto tail) __attribute__((always_inline)) {
        return mul(load(static_cast<const float*>(src) + i, tail), scale);
      });
  }
}

constexpr SoftmaxKernels kSoftmaxKernels = {softmax};

}  // namespace
}  // namespace tae::kernels
