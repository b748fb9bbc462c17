// Normalization of 8-bit and float values. Sums of 8-bit values are exact integers; those
// of floats run in 64 lanes on every ISA, so that results do not depend on it. Everything
// behind the statistics is one f32 operation a step, or one of 16-bit integers (words).
// Single-threaded and torch-free.
//
// Words: 8-bit results of 8-bit values, in steps of the output (no post-op but relu), wherever
// the 16 bits hold their numbers; else these results are floats that are rounded as they come.
// With v = u - 128, z and p the zero points of input and output in the u8 domain, <r> for r
// rounded to 16 bits, x . y = (x * y + 2^14) >> 15 and + saturating at 16 bits:
//   channels, r = a * (u - z) + b:
//     y = u8((v * 2^8 . <a * 2^(f + 7)> + <(a * (128 - z) + b + p) * 2^f>) . 2^(15 - f)),
//     f the largest of 4 .. 7 with numbers below 32767, found for each channel; all in f32;
//   rows, n = a * (u - z) + b, r = n * w[c] + s[c] (weight and bias times inverse_scale):
//     t = v * 2^8 . <a * 2^17> + <(a * (128 - z) + b) * 2^10>,
//     y = u8((t . <w[c] * 2^(f + 5)> + <(s[c] + p) * 2^f>) . 2^(15 - f)),
//     f the largest of 4 .. 7 with w and s + p of all channels below 32767; a row whose own two
//     numbers (f64, from f32 a and b) reach 32767, or whose t could (see row_words), has floats.
// u8 saturates. The sum in front of it does so below 0 or above 255 only: 32767 >> f >= 255.
// Error of y before its last rounding: half a unit of 2^-f each for the factor (|v| <= 128 times
// its error), the product and the sum: 1.5 * 2^-f < 0.1 for channels. For rows t has 1.5 units of
// 2^-10, times |w| < 2^(10 - f): together 3 * 2^-f < 0.19. The f32 numbers add less than 0.01.
// Below half a step, it moves a rounded result by one step at most.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"
#include "core/dtype.h"
#include "kernels/elementwise.h"

namespace tae::kernels {

// Sums of bytes u in the u8 domain: u = q for qu8, q + 128 for qs8.
struct ByteSums {
  int64_t sum = 0;
  int64_t squares = 0;
};

// Rows of one dtype, `stride` elements apart. x = f32(q - zero_point) * scale for an 8-bit
// dtype, the value itself (scale and zero_point unused) for f32 and bf16.
struct RealRows {
  const void* data = nullptr;
  DType dtype = DType::f32;
  int64_t stride = 0;
  float scale = 1.f;
  int32_t zero_point = 0;
};

// How a row of `count` values x is normalized:
//   n = (x - mean) / sqrt(var + eps), or x / sqrt(mean(x * x) + eps) when not centred;
//   r = n * weight[c] + bias[c], either null for 1 and 0.
struct RowNorm {
  int64_t count = 0;
  bool centred = true;
  double eps = 0.;
  const float* weight = nullptr;
  const float* bias = nullptr;
};

// Where rows of results go, and (f32 or bf16, null for nowhere) the rows x themselves.
struct NormOutput {
  Finish finish;
  void* dst = nullptr;
  void* real = nullptr;
  DType real_dtype = DType::f32;
};

struct NormKernels {
  // 8-bit rows. With S, Q the sums of u and u * u (exact), z the zero point and p = 1 / count:
  //   centred: a = f32(scale * k), b = f32(-(S - count * z) * p * (scale * k)),
  //            k = 1 / sqrt((count * Q - S * S) * (scale^2 * (p * p)) + eps), in f64;
  //   else:    a the same with the sum of (u - z)^2 * (scale^2 * p), b = 0;
  //   r = fma(fma(f32(u - z), a, b), weight[c], bias[c]).
  // An 8-bit result without post-ops but relu has weight[c] * inverse_scale and bias[c] *
  // inverse_scale instead: words, or rounded as it comes. `scratch` holds lane_floats(count);
  // null, which is slower and pays for a single row, changes no result.
  void (*byte_rows)(const RowNorm& norm, const RealRows& input, int64_t rows, float* scratch,
                    const NormOutput& out);
  // Rows x = input, or input + other. With m = f32(sum(x) / count) (0 when not centred),
  // d = x - m, D and E the sums of d and d * d in 64 f32 lanes:
  //   k = 1 / sqrt(E / count - (D / count)^2 + eps) in f64 (without D when not centred),
  //   r = (d * f32(k) + f32(-D / count * k)) * weight[c] + bias[c].
  // `scratch` holds `count` floats. other may be null.
  void (*real_rows)(const RowNorm& norm, const RealRows& input, const RealRows* other, int64_t rows,
                    float* scratch, const NormOutput& out);

  // Adds the sums over `count` values to *sums.
  void (*sums)(const void* src, DType dtype, int64_t count, ByteSums* sums);
  // Adds those of each of `channels` columns, `stride` values apart, over `rows` rows.
  void (*column_sums)(const void* src, DType dtype, int64_t rows, int64_t stride, int64_t channels,
                      ByteSums* sums);
  // r = fma(v, a[c], b[c]) over `rows` rows of `count` values v = f32(q - zero_point) of 8 bits, or
  // of floats; or one row with one a and b for all. Words for finish.inverse_scale 1. `scratch` holds
  // lane_floats(count).
  void (*affine)(const Finish& finish, const Operand& row, const float* a, const float* b, int64_t rows,
                 int64_t count, float* scratch, void* dst);
  void (*affine_all)(const Finish& finish, const Operand& row, float a, float b, int64_t count, void* dst);
};

// Internal linkage: files of every level include this.
// `count` values in whole groups of any level.
static constexpr int64_t lane_values(int64_t count) { return (count + 63) / 64 * 64; }
// Floats of scratch memory for the parameters of `count` values as floats and as words, and room to begin
// on a cache line.
static constexpr int64_t lane_floats(int64_t count) { return 4 * lane_values(count) + 16; }

// The table of the best level <= isa that has one (portable, avx2, avx512, avx512_vnni).
const NormKernels& norm_kernels(Isa isa);

// Coefficients of `affine` for one sample of a group norm: a[c] = f32(scale * k * weight[c] * factor),
// b[c] = f32((bias[c] - mean * (scale * k * weight[c])) * factor), k and mean as in byte_rows over the
// `channels / groups` sums of a group, each of `count` values; in f64.
struct GroupNumbers {
  int64_t channels = 1;
  int64_t groups = 1;
  int64_t count = 1;  // values of a channel
  double eps = 0.;
  const float* weight = nullptr;  // [channels] or null
  const float* bias = nullptr;
  double factor = 1.;  // steps of the output in 1, where results are rounded as they come
};
void group_coefficients(const GroupNumbers& g, const Operand& input, const ByteSums* sums, float* a,
                        float* b);

// Those of a batch norm (scale 1 for a float input): k = 1 / sqrt(var[c] + eps), a[c] = f32(scale * (k *
// weight[c]) * factor), b[c] = f32((bias[c] - mean[c] * (k * weight[c])) * factor) in f64.
struct BatchNumbers {
  int64_t channels = 1;
  double eps = 0.;
  const float* mean = nullptr;
  const float* var = nullptr;
  const float* weight = nullptr;  // or null
  const float* bias = nullptr;
  double factor = 1.;
};
void batch_coefficients(const BatchNumbers& numbers, float scale, float* a, float* b);

}  // namespace tae::kernels
