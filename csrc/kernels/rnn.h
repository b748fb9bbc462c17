// From the accumulators of one recurrent step to the next state, one table per ISA. The
// formulas are in engines/rnn.h; sigmoid and tanh are those of post_ops.cpp, with the
// same bits on every level.
#pragma once

#include <cstdint>

#include "core/cpu_features.h"

namespace tae::kernels {

// Units whose gates lie side by side: one load of 16 columns is one gate of 16 units.
constexpr int64_t kUnits = 16;

// Column of gate g of unit u when `gates` gates of 16 units alternate.
constexpr int64_t gate_column(int64_t u, int64_t g, int64_t gates) {
  return u / kUnits * kUnits * gates + g * kUnits + u % kUnits;
}

// A range of units (a multiple of 16, or up to the last) by rows. Pointers are at the
// first unit or at its first column; strides are in elements.
struct GateTile {
  int64_t rows = 0;
  int64_t units = 0;
  const int32_t* acc = nullptr;  // [rows][columns] of sum_k q * w
  int64_t acc_stride = 0;
  const int32_t* column_offset = nullptr;  // zero point of q times the sum of w's column
  const float* weight_scale = nullptr;
  const float* bias = nullptr;  // [columns], GRU only: of the recurrent side of n
  const float* x = nullptr;     // [rows][columns], the input's side with its biases
  int64_t x_stride = 0;
  // With weights in two parts: what the second ones add to the recurrent side, and to x (GRU, or null),
  // [rows][columns].
  const float* x_low = nullptr;
  int64_t x_low_stride = 0;
  const float* r_low = nullptr;
  int64_t r_low_stride = 0;
  const float* row_scale = nullptr;  // [rows]
  float* c = nullptr;                // LSTM: [rows][units], in and out
  float* h = nullptr;                // [rows][units], out; GRU: in and out
  int64_t state_stride = 0;          // of c and h
  float* y = nullptr;                // copy of h for the output, or null
  int64_t y_stride = 0;
};

// Without and with r_low. The projection is h = f32(acc - column_offset) * (row_scale *
// weight_scale) + r_low.
struct RnnKernels {
  using Fn = void (*)(const GateTile& t);
  Fn lstm[2];
  Fn gru[2];
  Fn rnn_tanh[2];
  Fn rnn_relu[2];
  Fn project[2];
};

// The table of the best level <= isa that has one (portable, avx2, avx512).
const RnnKernels& rnn_kernels(Isa isa);

}  // namespace tae::kernels
