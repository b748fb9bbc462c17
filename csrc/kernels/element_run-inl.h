// From 8-bit values to real ones and back in groups of 4 vectors: what the kernels of
// elementwise.h and norm.h share. Included by ISA files through their -inl.h.
#pragma once

#include "kernels/elementwise.h"
#include "kernels/post_ops-inl.h"
#include "kernels/rows_run-inl.h"

namespace tae::kernels {
namespace {

constexpr float kFarthest = 255.f;  // of a byte from its zero point

// How the values of an operand are read: known when the loop is compiled, or looked at for
// each vector.
enum class Bytes { u8, s8, any };

template <Bytes kBytes = Bytes::any, typename Tail>
TAE_VEC VI load_value(const void* p, int64_t i, DType dtype, Tail t) {
  if (kBytes == Bytes::s8 || (kBytes == Bytes::any && dtype == DType::qs8))
    return load_s8(static_cast<const int8_t*>(p) + i, t);
  return load_u8(static_cast<const uint8_t*>(p) + i, t);
}

// A group of kGroup elements, where a count is asked for: loops over it have no tails.
struct Whole {
  constexpr operator int64_t() const { return kGroup; }
};

template <Bytes kBytes>
class Reader {
 public:
  explicit Reader(const Operand& o)
      : data_(o.data), dtype_(o.dtype), zero_point_(vi(o.zero_point)), scale_(vf(o.scale)) {}
  TAE_VEC void operator()(int64_t at, int64_t n, VF (&x)[4]) const {
    for_group(n, [&](int j, auto tail) {
      const VI q = load_value<kBytes>(data_, at + j * kLanes, dtype_, tail);
      x[j] = mul(to_float(sub(q, zero_point_)), scale_);
    });
  }

 private:
  const void* data_;
  DType dtype_;
  VI zero_point_;
  VF scale_;
};

// Quantizes r, or max(r, 0).
template <bool kRelu>
class ByteWriter {
 public:
  ByteWriter(const Finish& f, void* dst)
      : dst_(static_cast<uint8_t*>(dst)),
        quantize_(f.inverse_scale, f.zero_point + (f.dtype == DType::qs8 ? 128 : 0), 0, 255),
        flip_(set1_8(f.dtype == DType::qs8 ? 128 : 0)) {}
  TAE_VEC void operator()(int64_t at, int64_t n, VF (&x)[4]) const {
    if constexpr (kRelu)
      for (VF& v : x) v = max(vf(0.f), v);
    const VBytes bytes = xor_bytes(quantize_(x), flip_);
    store_group_bytes(dst_ + at, bytes, n);
  }

 private:
  uint8_t* dst_;
  RunQuantizer quantize_;
  VBytes flip_;
};

// Any post-ops, any dtype.
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
      store_group_bytes(dst, bytes, n);
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

// Calls body(writer): the usual two have loops of their own.
template <typename Body>
TAE_VEC void with_writer(const Finish& f, void* dst, const Body& body) {
  const bool bytes = is_quantized(f.dtype);
  if (bytes && f.num_post_ops == 0) {
    body(ByteWriter<false>(f, dst));
  } else if (bytes && f.num_post_ops == 1 && f.post_ops[0].kind == PostOp::Kind::relu) {
    body(ByteWriter<true>(f, dst));
  } else {
    body(Writer(f, dst));
  }
}

// A value of Bytes as a type.
template <Bytes kBytes>
struct Kind {
  static constexpr Bytes value = kBytes;
};

template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

// Calls body(Kind) for a dtype of 8 bits.
template <typename Body>
TAE_VEC void with_bytes(DType dtype, const Body& body) {
  if (dtype == DType::qs8) {
    body(Kind<Bytes::s8>());
  } else {
    body(Kind<Bytes::u8>());
  }
}

// --- groups in lane order ---------------------------------------------------------
//
// The order in which expand_lanes leaves the bytes of a group and pack_lanes takes them: no
// permutation, and half of the instructions of the way through single vectors. For results of
// 8 bits whose post-ops are a clamp of bytes.

// Whether LaneWriter takes results of |r| * inverse_scale <= most steps.
inline bool fits_lanes(const Finish& f, float most) {
  return is_quantized(f.dtype) && folds(f) && most < 0x1p30f;
}

// x = q - zero_point, exact; 0 - zero_point behind the end.
template <Bytes kBytes>
class LaneReader {
 public:
  explicit LaneReader(const Operand& o)
      : data_(static_cast<const uint8_t*>(o.data)),
        offset_(vf(0x1p23f + static_cast<float>(o.zero_point + (kBytes == Bytes::s8 ? 128 : 0)))) {}
  TAE_VEC void operator()(int64_t at, int64_t n, VF (&x)[4]) const {
    VBytes u = held(load_group_bytes(data_ + at, n));
    if constexpr (kBytes == Bytes::s8) u = xor_bytes(u, set1_8(128));
    expand_lanes(u, x);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) x[j] = sub(x[j], offset_);
  }

 private:
  const uint8_t* data_;
  VF offset_;
};

// From values in steps of the output, without its zero point. kPlain: qu8 without relu.
template <bool kPlain>
class LaneWriter {
 public:
  LaneWriter(const Finish& f, void* dst) : dst_(static_cast<uint8_t*>(dst)), streams_(f.streams) {
    const int32_t shift = f.dtype == DType::qs8 ? 128 : 0, zero_point = f.zero_point + shift;
    zero_point_ = set1_16(zero_point);
    low_ = set1_8(f.num_post_ops > 0 ? zero_point : 0);
    flip_ = set1_8(shift);
  }
  TAE_VEC void operator()(int64_t at, int64_t n, const VF (&x)[4]) const {
    store(at, n, finished(pack_lanes(to_int(x[0]), to_int(x[1]), to_int(x[2]), to_int(x[3]), zero_point_)));
  }
  // Of bytes in the u8 domain.
  TAE_VEC VBytes finished(VBytes packed) const {
    return kPlain ? packed : xor_bytes(max_u8(packed, low_), flip_);
  }
  TAE_VEC void store(int64_t at, int64_t n, VBytes bytes) const {
    uint8_t* dst = dst_ + at;
    if (streams_ && n == kGroup && reinterpret_cast<uintptr_t>(dst) % kGroup == 0) [[unlikely]] {
      stream_bytes(dst, bytes);
    } else {
      store_group_bytes(dst, bytes, n);
    }
  }

 private:
  uint8_t* dst_;
  bool streams_;
  VI zero_point_;
  VBytes low_, flip_;
};

// Calls body(writer) where fits_lanes().
template <typename Body>
TAE_VEC void with_lane_writer(const Finish& f, void* dst, const Body& body) {
  if (f.dtype == DType::qu8 && f.num_post_ops == 0) {
    body(LaneWriter<true>(f, dst));
  } else {
    body(LaneWriter<false>(f, dst));
  }
}

// Behind the last store: what was streamed is there for other threads.
TAE_VEC void finish_streams(const Finish& f) {
  if (f.streams) _mm_sfence();
}

// Floats at the lanes of their elements: `count` of them to whole groups, zeros behind.
TAE_VEC void arrange_lanes(const float* src, int64_t count, float* dst) {
  float last[kGroup] = {};
  for (int64_t at = 0; at < count; at += kGroup) {
    const float* from = src + at;
    if (count - at < kGroup) {
      std::memcpy(last, from, static_cast<size_t>(count - at) * sizeof(float));
      from = last;
    }
#pragma GCC unroll 16
    for (int64_t e = 0; e < kGroup; e += 4)  // 4 values stay together
      std::memcpy(dst + at + e / 4 % 4 * kLanes + e / 16 * 4, from + e, 4 * sizeof(float));
  }
}

// Calls body(at, Whole) for groups of kGroup elements and once body(at, n) for the rest.
template <typename Body>
TAE_VEC void for_elements(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kGroup <= count; i += kGroup) body(i, Whole());
  if (i < count) body(i, count - i);
}

}  // namespace
}  // namespace tae::kernels
