// Linear layers whose weight alone is quantized, as engines see them: y = x W^T + bias with
// W in 8 bits per channel or 4 bits per group along k, and x in float.
//
// A row of x becomes 16-bit (or, if asked, 8-bit) integers with a scale of its own:
//   s[m] = max|x[m]| / 32639        (/ 127);  0: 1;  not below the smallest normal float
//   q    = round_half_even(x * (1 / s)), |q| <= 32639 (127)
//   q    = 256 h + l with h, l in [-128, 127]; l = 0 and h = q for 8 bits
// so that int8 instructions multiply it, in two planes. Then, each step in f32, no FMA:
//   8 bit: v = f32(sum_k h w) * 256 + f32(sum_k l w)       (f32(sum_k q w))
//          y = v * (s[m] * s_w[n]) + bias[n]
//   4 bit: v = sum_g f32(sum_{k in g} q w) * s_w[n][g], groups in order
//          y = v * s[m] + bias[n]
// Sums over k are exact. No step depends on m, on other rows, threads or the ISA, so a
// row has the same bits in every batch and on every CPU. A row with a NaN or infinity
// gives NaN. Torch-free.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/dtype.h"
#include "core/result.h"

namespace tae {

struct WeightOnlyProblem {
  int64_t k = 0;
  int64_t n = 0;
  int bits = 8;                         // of a weight: 8, 4
  int input_bits = 16;                  // 16, 8
  int64_t group = 0;                    // 4 bit: 32, 64, 128
  const void* weight = nullptr;         // 8: int8 [n][k]; 4: [n][ceil(k / 2)], even k low, w + 8
  const float* weight_scale = nullptr;  // 8: [n]; 4: [n][groups()]; finite, normal, > 0
  const float* bias = nullptr;          // [n], finite; or null
  DType dtype = DType::f32;             // of input and output: f32, bf16

  int64_t groups() const { return group == 0 ? 0 : (k + group - 1) / group; }
};

// Largest k with 8-bit weights whose sums cannot leave int32.
constexpr int64_t kMaxWeightOnlyK = 65793;

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
