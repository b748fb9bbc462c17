// The recurrent family as engines see it: one direction of one layer, int8 weights.
//
//   X[t]   = W_ih x[t] + biases           linear_dynamic (engines/linear.h), affine rows, f32
//   R[t]   = f32(acc) * (s_h * s_w)       acc = sum_k (q(h[t-1])[k] - 128) * w_hh, exact int32
//   LSTM:  i, f, o = sigmoid(X + R), g = tanh(X + R)
//          c = f * c + i * g,  h = o * tanh(c),  with a projection h = W_hr h
//   GRU:   r, z = sigmoid(X + R),  n = tanh(X_n + r * (R_n + b_hn)),  h = n + z * (h - n)
//   RNN:   h = tanh(X + R) or max(0, X + R)
// Each step in f32, no FMA; sigmoid and tanh within 4 ulp or 1e-7 (kernels/post_ops_constants.h). Biases are
// added in f32: b_ih + b_hh; b_hn stays apart.
//
// q(h) = clamp(round_half_even(h * (1 / s_h)), -127, 127) + 128, s_h = max|h| / 127 for each
// row at each step (0: 1; not below the smallest normal float). The value before a
// projection is quantized in the same way.
//
// Without per_row torch.ao's rule holds, weights have one part: x has one scale and zero point for
// all steps, h (and the value before a projection) one for all rows that a step has, by the tensor
// rule of engines/linear.h, 8 bits or 7 with reduce_range: acc = sum_k (q(h)[k] - zp) * w_hh.
//
// Weights in two parts, w = s_w * high + s_low * low: X and R have a value of each part, computed as
// above; biases are with the first. With low_period P > 1 the second part of R, and with
// low_input_held that of X, is computed at each P-th step of its row, counted from the row's first,
// and stays until the next: it is small, and h changes slowly. W_hr has both parts at each step.
//   X = X_high + X_low where it is not held
//   LSTM, RNN: X + R = (X + R_high) + R_low, or (X_high + R_high) + (R_low + X_low) with X_low held
//   GRU: R = R_high + R_low, and X = X_high + X_low in any case
//
// A row of x or of h0 with a NaN or infinity, or of c0 with a NaN, gives NaN in every unit
// of this and of later steps; without per_row all rows that a scale is for. Torch-free.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/dtype.h"
#include "core/result.h"
#include "engines/linear.h"

namespace tae {

enum class RnnKind : uint8_t { lstm, gru, rnn_tanh, rnn_relu };

constexpr int64_t gates_of(RnnKind kind) { return kind == RnnKind::lstm ? 4 : kind == RnnKind::gru ? 3 : 1; }

// A matrix [rows][columns] with a scale for each row; `low` and its scales are null when it has
// one part.
struct RnnWeight {
  const int8_t* high = nullptr;
  const float* scale = nullptr;
  const int8_t* low = nullptr;
  const float* low_scale = nullptr;

  int parts() const { return low == nullptr ? 1 : 2; }
};

struct RnnProblem {
  RnnKind kind = RnnKind::lstm;
  int64_t input = 0;   // features of x
  int64_t hidden = 0;  // units
  int64_t output = 0;  // features of h: hidden, or those of the projection
  DType input_dtype = DType::f32;
  // Rows in torch's gate order (i f g o, r z n). Where W_ih has two parts W_hh has, too.
  RnnWeight ih;                    // [gates * hidden][input]
  RnnWeight hh;                    // [gates * hidden][output]
  RnnWeight hr;                    // [output][hidden], or null
  const float* bias_ih = nullptr;  // [gates * hidden] or null, as the next
  const float* bias_hh = nullptr;
  int64_t low_period = 1;  // of W_hh, and of W_ih when held; above
  bool low_input_held = false;
  bool per_row = true;
  bool reduce_range = false;  // without per_row

  bool projected() const { return hr.high != nullptr; }
};

// Largest k: 255 * column_sum, what a zero point adds, must fit into int32 as the sums do.
constexpr int64_t kMaxRnnK = kMaxExactK;

class RnnImpl;

// One direction of a call. States are [batch][...], contiguous.
struct RnnDirection {
  const RnnImpl* impl = nullptr;
  bool reverse = false;
  const float* h0 = nullptr;  // null: zeros
  const float* c0 = nullptr;
  float* h = nullptr;  // [batch][output], final
  float* c = nullptr;  // [batch][hidden], final
  float* y = nullptr;  // first row of the output of this direction
};

struct RnnArgs {
  int64_t steps = 0;
  int64_t batch = 0;
  const int64_t* batch_sizes = nullptr;  // [steps], descending, rows packed; null: all `batch`
  const int64_t* row_offsets = nullptr;  // [steps + 1], first row of each step; with batch_sizes
  const void* x = nullptr;               // [rows][input]
  int64_t y_stride = 0;                  // elements from one row of y to the next

  int64_t rows_of(int64_t t) const { return batch_sizes == nullptr ? batch : batch_sizes[t]; }
  int64_t first_row(int64_t t) const { return batch_sizes == nullptr ? t * batch : row_offsets[t]; }
  // The first step, in the order of the direction, that row n has.
  int64_t first_step(bool reverse, int64_t n) const {
    if (!reverse || batch_sizes == nullptr) return 0;
    int64_t t = steps - 1;
    while (batch_sizes[t] <= n) --t;
    return steps - 1 - t;
  }
};

class RnnImpl {
 public:
  virtual ~RnnImpl() = default;
  // Runs one layer: one or two directions whose impl is of this engine. Thread-safe.
  virtual void run(const RnnArgs& args, const RnnDirection* directions, int count) const = 0;
  virtual const char* engine() const = 0;
  virtual std::string description() const = 0;
  virtual size_t packed_bytes() const = 0;
};
using RnnImplPtr = std::shared_ptr<const RnnImpl>;

Result<RnnImplPtr> make_rnn_native(const RnnProblem& p);
Result<RnnImplPtr> make_rnn_reference(const RnnProblem& p);

}  // namespace tae
