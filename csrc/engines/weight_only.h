// Linear layers whose weight alone is quantized, as engines see them: y = x W^T + bias with
// W in 8 bits per channel or 4 bits per group along k, and x in float.
//
// int8 instructions multiply a row of x, in groups of its k: those of the weights with 4 bits,
// 64 values with 8 bits. Each group becomes integers with a scale of its own:
//   a = max|x| of the group;  t = max(a / 127, smallest normal float)
//   h = round_half_even(x * (1 / t)), l = 0
// or, where that says too little of the group, a second plane of bytes:
//   s = max(a / 32639, smallest normal float);  t = 256 s
//   q = round_half_even(x * (1 / s)) = 256 h + l with h, l in [-128, 127]
// The second is for groups with a > 0 and
//   16 input bits: always
//   8 input bits, 8-bit weights: sum of h^2 < 840 * count of values. What is left has an error
//     of t^2 / 12 in the mean, 40 dB and more below the group's own mean square.
//   8 input bits, 4-bit weights: never. At worst, one value alone in a group of 128, that
//     error is 32 dB below, and that of 4-bit weights is 20.
// Then, each step in f32, no FMA, groups in order, r the power of two at or below the largest t:
//   v = 0;  v += f32(sum h w) * (t / r) * u;  v += f32(sum l w) * (s / r) * u
//   8 bit: u = 1 (no step);    y = v * (r * s_w[n]) + bias[n]
//   4 bit: u = s_w[n][group];  y = v * r + bias[n]
// Sums over k are exact. A row's bits depend on nothing but the row: not on m, on other rows,
// on threads or the ISA. A row with a NaN or infinity gives NaN. Torch-free.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "core/dtype.h"
#include "core/result.h"
#include "core/round_up.h"

namespace tae {

constexpr int64_t kWeightOnlyInputGroup = 64;  // with 8-bit weights

struct WeightOnlyProblem {
  int64_t k = 0;
  int64_t n = 0;
  int bits = 8;                         // of a weight: 8, 4
  int input_bits = 8;                   // 8, 16
  int64_t group = 0;                    // 4 bit: 32, 64, 128
  const void* weight = nullptr;         // 8: int8 [n][k]; 4: [n][ceil(k / 2)], even k low, w + 8
  const float* weight_scale = nullptr;  // 8: [n]; 4: [n][groups()]; finite, normal, > 0
  const float* bias = nullptr;          // [n], finite; or null
  DType dtype = DType::f32;             // of input and output: f32, bf16

  // Of x, and of the weights with 4 bits.
  int64_t input_group() const { return group == 0 ? kWeightOnlyInputGroup : group; }
  int64_t groups() const { return ceil_div(k, input_group()); }
  // A group whose sum of h^2 is less than this a value has two planes (a > 0).
  float two_planes_below() const {
    if (input_bits == 16) return std::numeric_limits<float>::infinity();
    return bits == 8 ? 840.f : 0.f;
  }
};

struct WeightOnlyArgs {
  int64_t m = 0;
  const void* input = nullptr;  // [m][k]
  int64_t input_stride = 0;     // in elements, >= k
  void* output = nullptr;       // [m][n], contiguous
};

class WeightOnlyImpl {
 public:
  virtual ~WeightOnlyImpl() = default;
  // Thread-safe. Throws std::bad_alloc only.
  virtual void run(const WeightOnlyArgs& args) const = 0;
  virtual const char* engine() const = 0;
  virtual std::string description() const = 0;
  virtual size_t packed_bytes() const = 0;
};
using WeightOnlyImplPtr = std::shared_ptr<const WeightOnlyImpl>;

// The problem's pointers are dead after make returns.
Result<WeightOnlyImplPtr> make_weight_only_native(const WeightOnlyProblem& p);
Result<WeightOnlyImplPtr> make_weight_only_reference(const WeightOnlyProblem& p);

}  // namespace tae
