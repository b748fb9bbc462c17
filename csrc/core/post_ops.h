// Operations applied to the real-valued result of a linear or convolution before
// it is divided by the output scale, in the order given.
#pragma once

#include <cstdint>
#include <vector>

namespace tae {

struct PostOp {
  enum class Kind : uint8_t {
    relu,         // max(x, 0)
    clamp,        // min(max(x, alpha), beta)
    leaky_relu,   // x < 0 ? alpha * x : x
    silu,         // x * sigmoid(x)
    gelu_erf,     // x * Phi(x)
    gelu_tanh,    // tanh approximation
    hardswish,    // x * min(max(x + 3, 0), 6) / 6
    hardsigmoid,  // min(max(x + 3, 0), 6) / 6
    sigmoid,
    tanh,
    add,     // x + other, `other` given with each call
    prelu,   // x < 0 ? slope * x : x, the slope of x's column
    affine,  // x * weight + bias, both of x's column, rounded twice
  };
  Kind kind = Kind::relu;
  float alpha = 0.f;
  float beta = 0.f;

  friend bool operator==(const PostOp& a, const PostOp& b) {
    return a.kind == b.kind && a.alpha == b.alpha && a.beta == b.beta;
  }
};

// Whether it reads more than x and its own numbers: `other`, or tensors with a number for each column.
constexpr bool reads_operand(PostOp::Kind kind) {
  return kind == PostOp::Kind::add || kind == PostOp::Kind::prelu || kind == PostOp::Kind::affine;
}

// At most this many in one op; at most one of them is `add`, one `affine`.
constexpr int kMaxPostOps = 8;
using PostOps = std::vector<PostOp>;

}  // namespace tae
