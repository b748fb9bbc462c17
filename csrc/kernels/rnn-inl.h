// The gates of 16 units at a time, included by each rnn__<isa>.cpp.
#pragma once

#include "kernels/post_ops-inl.h"
#include "kernels/rnn.h"
#include "kernels/vec.h"
#include "kernels/vec_float_env.h"

namespace tae::kernels {
namespace {

// What a cell reads for one vector of units of one row: `u` is the unit, `acc`, `x` and the
// columns of the tile begin at the first gate of it.
struct Place {
  const GateTile& t;
  VF row_scale;
  int64_t r;
  int64_t u;
  int64_t column;
  const int32_t* acc;
  const float* x;
};

// f32(acc - 128 * column_sum) * (row_scale * weight_scale) at one column.
TAE_VEC VF recurrent_part(const Place& p, int64_t j) {
  // 128 * column_sum by shift: it fits, see engines/rnn.h.
  const VI sum = sub(load(p.acc + j, Full{}), shift_left<7>(load(p.t.column_sum + p.column + j, Full{})));
  return mul(to_float(sum), mul(p.row_scale, load(p.t.weight_scale + p.column + j, Full{})));
}

// kGates gates in kParts parts: the sums of gate g.
template <int64_t kGates, int kParts>
struct Gates {
  static constexpr int64_t kColumns = kGates * kParts;

  TAE_VEC static VF recurrent(const Place& p, int64_t g) {
    const VF high = recurrent_part(p, g * kUnits);
    if constexpr (kParts == 1) return high;
    return add(high, recurrent_part(p, (kGates + g) * kUnits));
  }
  TAE_VEC static VF input(const Place& p, int64_t g) {
    const VF high = load(p.x + g * kUnits, Full{});
    if constexpr (kParts == 1) return high;
    return add(high, load(p.x + (kGates + g) * kUnits, Full{}));
  }
  TAE_VEC static VF both(const Place& p, int64_t g) { return add(input(p, g), recurrent(p, g)); }
};

template <int kParts>
struct LstmCell : Gates<4, kParts> {
  using G = Gates<4, kParts>;
  template <typename Tail>
  TAE_VEC static VF step(const Place& p, Tail tail) {
    float* c = p.t.c + p.r * p.t.state_stride + p.u;
    const VF i = sigmoid(G::both(p, 0));
    const VF f = sigmoid(G::both(p, 1));
    const VF g = tanh(G::both(p, 2));
    const VF o = sigmoid(G::both(p, 3));
    const VF next = add(mul(f, load(c, tail)), mul(i, g));
    store(c, next, tail);
    return mul(o, tanh(next));
  }
};

template <int kParts>
struct GruCell : Gates<3, kParts> {
  using G = Gates<3, kParts>;
  template <typename Tail>
  TAE_VEC static VF step(const Place& p, Tail tail) {
    const VF reset = sigmoid(G::both(p, 0));
    const VF z = sigmoid(G::both(p, 1));
    const VF inner = add(G::recurrent(p, 2), load(p.t.bias + p.column + 2 * kUnits, Full{}));
    const VF n = tanh(add(G::input(p, 2), mul(reset, inner)));
    return add(n, mul(z, sub(load(p.t.h + p.r * p.t.state_stride + p.u, tail), n)));
  }
};

template <int kParts>
struct TanhCell : Gates<1, kParts> {
  template <typename Tail>
  TAE_VEC static VF step(const Place& p, Tail) {
    return tanh(Gates<1, kParts>::both(p, 0));
  }
};

template <int kParts>
struct ReluCell : Gates<1, kParts> {
  template <typename Tail>
  TAE_VEC static VF step(const Place& p, Tail) {
    return max(vf(0.f), Gates<1, kParts>::both(p, 0));
  }
};

template <int kParts>
struct Projection : Gates<1, kParts> {
  template <typename Tail>
  TAE_VEC static VF step(const Place& p, Tail) {
    return Gates<1, kParts>::recurrent(p, 0);
  }
};

template <typename Cell, typename Tail>
TAE_VEC void run_units(const Place& p, Tail tail) {
  const VF h = Cell::step(p, tail);
  store(p.t.h + p.r * p.t.state_stride + p.u, h, tail);
  if (p.t.y != nullptr) store(p.t.y + p.r * p.t.y_stride + p.u, h, tail);
}

template <typename Cell>
[[gnu::noinline]] void run_cell(const GateTile& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    const VF row_scale = vf(t.row_scale[r]);
    for (int64_t block = 0; block < t.units; block += kUnits) {
      for (int64_t lane = 0; lane < kUnits; lane += kLanes) {
        const int64_t u = block + lane;
        const int64_t column = block * Cell::kColumns + lane;
        const Place p = {t,
                         row_scale,
                         r,
                         u,
                         column,
                         t.acc + r * t.acc_stride + column,
                         t.x == nullptr ? nullptr : t.x + r * t.x_stride + column};
        const int64_t left = t.units - u;
        if (left >= kLanes) {
          run_units<Cell>(p, Full{});
        } else if (left > 0) {
          run_units<Cell>(p, Part(left));
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

constexpr RnnKernels kRnnKernels = {{enter<LstmCell<1>>, enter<LstmCell<2>>},
                                    {enter<GruCell<1>>, enter<GruCell<2>>},
                                    {enter<TanhCell<1>>, enter<TanhCell<2>>},
                                    {enter<ReluCell<1>>, enter<ReluCell<2>>},
                                    {enter<Projection<1>>, enter<Projection<2>>}};

}  // namespace
}  // namespace tae::kernels
