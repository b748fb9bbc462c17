// The gates of 16 units at a time, included by each rnn__<isa>.cpp.
#pragma once

#include "kernels/post_ops-inl.h"
#include "kernels/rnn.h"
#include "kernels/vec.h"
#include "kernels/vec_float_env.h"

namespace tae::kernels {
namespace {

// Constants of one row.
struct RnnRow {
  VF scale;
  VF inverse;
};

// f32(acc - 128 * column_sum) * (row_scale * weight_scale) at column j.
TAE_VEC VF recurrent(const GateTile& t, const int32_t* acc, int64_t j, const RnnRow& row) {
  // 128 * column_sum by shift: it fits, see engines/rnn.h.
  const VI sum = sub(load(acc + j, Full{}), shift_left<7>(load(t.column_sum + j, Full{})));
  return mul(to_float(sum), mul(row.scale, load(t.weight_scale + j, Full{})));
}

template <typename Tail>
TAE_VEC void store_state(const GateTile& t, int64_t r, int64_t u, VF h, const RnnRow& row, Tail tail) {
  store(t.h + r * t.state_stride + u, h, tail);
  if (t.y != nullptr) store(t.y + r * t.y_stride + u, h, tail);
  if (t.q != nullptr) {
    // NaN becomes -127, as in the reference.
    const VF v = min(vf(127.f), max(mul(h, row.inverse), vf(-127.f)));
    store_low8(t.q + r * t.q_stride + u, add(to_int(v), vi(128)), tail);
  }
}

struct LstmCell {
  static constexpr int64_t kGates = 4;
  template <typename Tail>
  TAE_VEC static VF step(const GateTile& t, int64_t r, int64_t u, int64_t j, const int32_t* acc,
                         const float* x, const RnnRow& row, Tail tail) {
    float* c = t.c + r * t.state_stride + u;
    const VF i = sigmoid(add(load(x + j, Full{}), recurrent(t, acc, j, row)));
    const VF f = sigmoid(add(load(x + j + 16, Full{}), recurrent(t, acc, j + 16, row)));
    const VF g = tanh(add(load(x + j + 32, Full{}), recurrent(t, acc, j + 32, row)));
    const VF o = sigmoid(add(load(x + j + 48, Full{}), recurrent(t, acc, j + 48, row)));
    const VF next = add(mul(f, load(c, tail)), mul(i, g));
    store(c, next, tail);
    return mul(o, tanh(next));
  }
};

struct GruCell {
  static constexpr int64_t kGates = 3;
  template <typename Tail>
  TAE_VEC static VF step(const GateTile& t, int64_t r, int64_t u, int64_t j, const int32_t* acc,
                         const float* x, const RnnRow& row, Tail tail) {
    const VF reset = sigmoid(add(load(x + j, Full{}), recurrent(t, acc, j, row)));
    const VF z = sigmoid(add(load(x + j + 16, Full{}), recurrent(t, acc, j + 16, row)));
    const VF inner = add(recurrent(t, acc, j + 32, row), load(t.bias + j + 32, Full{}));
    const VF n = tanh(add(load(x + j + 32, Full{}), mul(reset, inner)));
    return add(n, mul(z, sub(load(t.h + r * t.state_stride + u, tail), n)));
  }
};

struct TanhCell {
  static constexpr int64_t kGates = 1;
  template <typename Tail>
  TAE_VEC static VF step(const GateTile& t, int64_t, int64_t, int64_t j, const int32_t* acc, const float* x,
                         const RnnRow& row, Tail) {
    return tanh(add(load(x + j, Full{}), recurrent(t, acc, j, row)));
  }
};

struct ReluCell {
  static constexpr int64_t kGates = 1;
  template <typename Tail>
  TAE_VEC static VF step(const GateTile& t, int64_t, int64_t, int64_t j, const int32_t* acc, const float* x,
                         const RnnRow& row, Tail) {
    return max(vf(0.f), add(load(x + j, Full{}), recurrent(t, acc, j, row)));
  }
};

struct Projection {
  static constexpr int64_t kGates = 1;
  template <typename Tail>
  TAE_VEC static VF step(const GateTile& t, int64_t, int64_t, int64_t j, const int32_t* acc, const float*,
                         const RnnRow& row, Tail) {
    return recurrent(t, acc, j, row);
  }
};

template <typename Cell>
[[gnu::noinline]] void run_cell(const GateTile& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    const RnnRow row = {vf(t.row_scale[r]), vf(t.q_inverse == nullptr ? kUnitInverse : t.q_inverse[r])};
    const int32_t* acc = t.acc + r * t.acc_stride;
    const float* x = t.x + r * t.x_stride;
    for (int64_t block = 0; block < t.units; block += kUnits) {
      for (int64_t lane = 0; lane < kUnits; lane += kLanes) {
        const int64_t u = block + lane;
        const int64_t j = block * Cell::kGates + lane;
        const int64_t left = t.units - u;
        if (left >= kLanes) {
          store_state(t, r, u, Cell::step(t, r, u, j, acc, x, row, Full{}), row, Full{});
        } else if (left > 0) {
          store_state(t, r, u, Cell::step(t, r, u, j, acc, x, row, Part(left)), row, Part(left));
        }
      }
    }
  }
}

template <typename Cell>
void enter(const GateTile& t) {
  const DefaultFloatEnv env;
  run_cell<Cell>(t);
}

constexpr RnnKernels kRnnKernels = {enter<LstmCell>, enter<GruCell>, enter<TanhCell>, enter<ReluCell>,
                                    enter<Projection>};

}  // namespace
}  // namespace tae::kernels
