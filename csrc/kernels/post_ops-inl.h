// Vector form of the post-ops (all without operands), included by each epilogue__<isa>.cpp.
// post_ops.cpp is the definition: change both or neither.
#pragma once

#include "core/post_ops.h"
#include "kernels/post_ops_constants.h"
#include "kernels/vec.h"

namespace tae::kernels {
namespace {

TAE_VEC VF sign_bits(VF x) { return as_float(and_bits(as_int(x), vi(INT32_MIN))); }
TAE_VEC VF abs(VF x) { return as_float(and_bits(as_int(x), vi(INT32_MAX))); }

template <int kSize>
TAE_VEC VF polynomial(const float (&c)[kSize], VF x) {
  VF y = vf(c[0]);
#pragma GCC unroll 10
  for (int i = 1; i < kSize; ++i) y = add(mul(y, x), vf(c[i]));
  return y;
}

TAE_VEC VF exp_nonpositive(VF x, float cutoff = kExpCutoff) {
  // Bounded first: lanes that become 0 must not compute denormals, which trap to
  // microcode.
  const VF t = max(vf(cutoff), x);
  const VF shifted = add(mul(t, vf(kLog2E)), vf(kRoundMagic));
  const VF n = sub(shifted, vf(kRoundMagic));
  VF r = sub(t, mul(n, vf(kLn2High)));
  r = sub(r, mul(n, vf(kLn2Low)));
  const VF y = add(add(mul(polynomial(kExp, r), mul(r, r)), r), vf(1.f));
  const VF power = as_float(shift_left<23>(add(as_int(shifted), vi(127))));
  return select(less(x, vf(cutoff)), vf(0.f), mul(y, power));
}

TAE_VEC VF sigmoid(VF x) {
  const VF e = exp_nonpositive(as_float(or_bits(as_int(x), vi(INT32_MIN))));  // -|x|
  return div(select(less(x, vf(0.f)), e, vf(1.f)), add(vf(1.f), e));
}

TAE_VEC VF tanh(VF x) {
  const VF e = exp_nonpositive(mul(vf(-2.f), abs(x)));
  const VF magnitude = div(sub(vf(1.f), e), add(vf(1.f), e));
  const VF large = as_float(or_bits(as_int(abs(magnitude)), as_int(sign_bits(x))));
  const VF z = mul(x, x);
  const VF small = add(mul(mul(polynomial(kTanh, z), z), x), x);
  return select(less(abs(x), vf(kTanhSmall)), small, large);
}

TAE_VEC VF gelu_erf(VF x) {
  const VF t = abs(x);
  const VF u = div(vf(1.f), add(vf(1.f), mul(vf(kTailSlope), t)));
  const VF tail = mul(exp_nonpositive(mul(mul(t, t), vf(-0.5f)), kTailCutoff), polynomial(kTail, u));
  return mul(max(vf(kGeluFloor), x), select(less(x, vf(0.f)), tail, sub(vf(1.f), tail)));
}

TAE_VEC VF gelu_tanh(VF x) {
  const VF z = mul(x, add(vf(kGeluTanh1), mul(vf(kGeluTanh3), mul(x, x))));
  return mul(max(vf(kGeluFloor), x), sigmoid(z));
}

TAE_VEC VF relu6_of_plus3(VF x) { return min(vf(6.f), max(vf(0.f), add(x, vf(3.f)))); }

// The long ones are kept out of line: one copy per file instead of one per tile shape.
// Vector arguments by reference, so that no calling convention depends on the ISA.
[[gnu::noinline, maybe_unused]] void apply_transcendental(PostOp::Kind kind, VF* x, int count) noexcept {
  switch (kind) {
    case PostOp::Kind::silu:
      for (int i = 0; i < count; ++i) x[i] = mul(max(vf(kSiluFloor), x[i]), sigmoid(x[i]));
      break;
    case PostOp::Kind::gelu_erf:
      for (int i = 0; i < count; ++i) x[i] = gelu_erf(x[i]);
      break;
    case PostOp::Kind::gelu_tanh:
      for (int i = 0; i < count; ++i) x[i] = gelu_tanh(x[i]);
      break;
    case PostOp::Kind::sigmoid:
      for (int i = 0; i < count; ++i) x[i] = sigmoid(x[i]);
      break;
    case PostOp::Kind::tanh:
      for (int i = 0; i < count; ++i) x[i] = tanh(x[i]);
      break;
    default:
      break;
  }
}

template <int kCount>
TAE_VEC void apply_unary(const PostOp& op, VF (&x)[kCount]) {
  const VF alpha = vf(op.alpha), beta = vf(op.beta);
  switch (op.kind) {
    case PostOp::Kind::relu:
      for (VF& v : x) v = max(vf(0.f), v);
      break;
    case PostOp::Kind::clamp:
      for (VF& v : x) v = min(beta, max(alpha, v));
      break;
    case PostOp::Kind::leaky_relu:
      for (VF& v : x) v = select(less(v, vf(0.f)), mul(alpha, v), v);
      break;
    case PostOp::Kind::hardswish:
      for (VF& v : x) v = div(mul(max(vf(-3.f), v), relu6_of_plus3(v)), vf(6.f));
      break;
    case PostOp::Kind::hardsigmoid:
      for (VF& v : x) v = div(relu6_of_plus3(v), vf(6.f));
      break;
    default: {
      VF copy[kCount];  // so that x itself can stay in registers on the other paths
      for (int i = 0; i < kCount; ++i) copy[i] = x[i];
      apply_transcendental(op.kind, copy, kCount);
      for (int i = 0; i < kCount; ++i) x[i] = copy[i];
    }
  }
}

}  // namespace
}  // namespace tae::kernels
