#include "kernels/post_ops.h"

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/post_ops_constants.h"

namespace tae::kernels {
namespace {

// The x86 forms: b when either is NaN, so that max(bound, x) keeps a NaN x.
float max(float a, float b) { return a > b ? a : b; }
float min(float a, float b) { return a < b ? a : b; }

template <int kSize>
float polynomial(const float (&c)[kSize], float x) {
  float y = c[0];
  for (int i = 1; i < kSize; ++i) y = y * x + c[i];
  return y;
}

// exp(t) for t <= 0, 0 below the cutoff, NaN for NaN.
float exp_from(float cutoff, float t) {
  if (t < cutoff) return 0.f;
  const float shifted = t * kLog2E + kRoundMagic;
  const float n = shifted - kRoundMagic;
  float r = t - n * kLn2High;
  r = r - n * kLn2Low;
  const float y = polynomial(kExp, r) * (r * r) + r + 1.f;
  const float power = std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) + 127u) << 23);
  return y * power;
}

float sigmoid(float x) {
  const float e = exp_from(kExpCutoff, -std::fabs(x));
  return (x < 0.f ? e : 1.f) / (1.f + e);
}

float tanh(float x) {
  const float e = exp_from(kExpCutoff, -2.f * std::fabs(x));
  const float large = std::copysign((1.f - e) / (1.f + e), x);
  const float z = x * x;
  const float small = polynomial(kTanh, z) * z * x + x;
  return std::fabs(x) < kTanhSmall ? small : large;
}

float gelu_erf(float x) {
  const float t = std::fabs(x);
  const float u = 1.f / (1.f + kTailSlope * t);
  const float tail = exp_from(kTailCutoff, t * t * -0.5f) * polynomial(kTail, u);
  return max(kGeluFloor, x) * (x < 0.f ? tail : 1.f - tail);
}

float gelu_tanh(float x) {
  const float z = x * (kGeluTanh1 + kGeluTanh3 * (x * x));
  return max(kGeluFloor, x) * sigmoid(z);
}

}  // namespace

float exp_nonpositive(float t) { return exp_from(kExpCutoff, t); }

float apply_post_op(const PostOp& op, float x, float operand, float shift) {
  switch (op.kind) {
    case PostOp::Kind::relu:
      return max(0.f, x);
    case PostOp::Kind::clamp:
      return min(op.beta, max(op.alpha, x));
    case PostOp::Kind::leaky_relu:
      return x < 0.f ? op.alpha * x : x;
    case PostOp::Kind::silu:
      return max(kSiluFloor, x) * sigmoid(x);
    case PostOp::Kind::gelu_erf:
      return gelu_erf(x);
    case PostOp::Kind::gelu_tanh:
      return gelu_tanh(x);
    // The bound changes nothing but -inf * 0.
    case PostOp::Kind::hardswish:
      return max(-3.f, x) * min(6.f, max(0.f, x + 3.f)) / 6.f;
    case PostOp::Kind::hardsigmoid:
      return min(6.f, max(0.f, x + 3.f)) / 6.f;
    case PostOp::Kind::sigmoid:
      return sigmoid(x);
    case PostOp::Kind::tanh:
      return tanh(x);
    case PostOp::Kind::add:
      return x + operand;
    case PostOp::Kind::prelu:
      return x < 0.f ? operand * x : x;
    case PostOp::Kind::affine:
      return x * operand + shift;
  }
  return x;
}

}  // namespace tae::kernels
