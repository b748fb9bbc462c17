// Numbers of the transcendental post-ops, shared by the vector and the scalar form:
// both run the same sequence of f32 additions, multiplications and divisions (no
// FMA), so that every ISA gives the same bits.
//
//   e(t) = exp(t), t <= 0:   n = round(t * log2(e)), r = t - n * ln2 (two parts),
//                            2^n * (1 + r + r^2 * P(r)); 0 below a cutoff (no denormals)
//   sigmoid(x) = (x < 0 ? e : 1) / (1 + e),       e = e(-|x|)
//   silu(x)    = max(x, -88) * sigmoid(x)         the bound turns -inf * 0 into -0
//   gelu_tanh  = max(x, -14) * sigmoid(x * (2c + 2c * 0.044715 * x^2)), c = sqrt(2 / pi);
//                the same as 0.5 x (1 + tanh(...)) without its cancellation
//   tanh(x)    = x + x^3 P(x^2) for |x| < 0.625, else +-(1 - e) / (1 + e), e = e(-2|x|)
//   gelu_erf   = x * (1 - Q) for x >= 0, max(x, -14) * Q for x < 0,
//                Q = e(-x^2 / 2) * P(1 / (1 + 0.33 |x|)) the upper tail of the normal distribution
//
// Largest error against f64, measured over all bf16 values and 4e6 floats
// (test/csrc/kernels/epilogue.cpp): within 4 ulp of the result or 1e-7 absolute.
// NaN gives NaN (which one is not specified).
#pragma once

namespace tae::kernels {
namespace {

// exp: Cody-Waite and polynomial of Cephes expf (S. Moshier).
constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2High = 0.693359375f;  // 10 bits: n * kLn2High is exact
constexpr float kLn2Low = -2.12194440e-4f;
constexpr float kExp[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                          4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
constexpr float kExpCutoff = -87.f;  // e(t) would be close to the smallest normal float
// Adding it leaves an integer in the low mantissa bits (1.5 * 2^23).
constexpr float kRoundMagic = 12582912.f;

// tanh near 0: Cephes tanhf.
constexpr float kTanh[] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f,
                           -3.33332819422e-1f};
constexpr float kTanhSmall = 0.625f;

constexpr float kSiluFloor = -88.f;
constexpr float kGeluFloor = -14.f;                  // both gelu forms are below 1e-40 there
constexpr float kGeluTanh1 = 1.5957691216057308f;    // 2 sqrt(2 / pi)
constexpr float kGeluTanh3 = 0.071354816272600242f;  // 2 sqrt(2 / pi) * 0.044715

// Normal tail times exp(t^2 / 2), in u = 1 / (1 + 0.33 t): minimax fit of degree 9 on
// [0, 13.3], relative error 6e-8 with these f32 coefficients. Highest degree first.
constexpr float kTailCutoff = -82.f;  // of the exponent: the product stays a normal float
constexpr float kTailSlope = 0.33f;
constexpr float kTail[] = {-0.026502493768930435f, 0.15183039009571075f,  -0.329549640417099f,
                           0.30070120096206665f,   -0.11386875808238983f, 0.14944539964199066f,
                           0.10257916897535324f,   0.13390296697616577f,  0.13145428895950317f,
                           7.4677095653896686e-06f};

}  // namespace
}  // namespace tae::kernels
