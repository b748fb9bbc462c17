// From 8-bit values to real ones and back in groups of 4 vectors: what the kernels of
// elementwise.h and norm.h share. Included by ISA files through their -inl.h.
#pragma once

#include "kernels/elementwise.h"
#include "kernels/post_ops-inl.h"
#include "kernels/rows_run-inl.h"

namespace tae::kernels {
namespace {

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
    if (n == kGroup) {
      store_bytes(dst_ + at, bytes);
    } else {
      store_bytes(dst_ + at, bytes, n);
    }
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

// Calls body(Kind) for a dtype of 8 bits.
template <typename Body>
TAE_VEC void with_bytes(DType dtype, const Body& body) {
  if (dtype == DType::qs8) {
    body(Kind<Bytes::s8>());
  } else {
    body(Kind<Bytes::u8>());
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
