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
  const float* x_low;
  const float* r_low;
};

// f32(acc - column_offset) * (row_scale * weight_scale) at one column.
TAE_VEC VF recurrent_part(const Place& p, int64_t j) {
  const VI sum = sub(load(p.acc + j, Full{}), load(p.t.column_offset + p.column + j, Full{}));
  return mul(to_float(sum), mul(p.row_scale, load(p.t.weight_scale + p.column + j, Full{})));
}

// The sums of gate g of kGates, of weights in kParts parts.
template <int64_t kGates, int kParts>
struct Gates {
  static constexpr int64_t kColumns = kGates;
  static constexpr bool kLow = kParts == 2;

  TAE_VEC static VF recurrent(const Place& p, int64_t g) {
    const VF high = recurrent_part(p, g * kUnits);
    if constexpr (!kLow) return high;
    return add(high, load(p.r_low + g * kUnits, Full{}));
  }
  TAE_VEC static VF input(const Place& p, int64_t g) {
    const VF high = load(p.x + g * kUnits, Full{});
    if (!kLow || p.x_low == nullptr) return high;
    return add(high, load(p.x_low + g * kUnits, Full{}));
  }
  TAE_VEC static VF both(const Place& p, int64_t g) {
    const VF high = add(load(p.x + g * kUnits, Full{}), recurrent_part(p, g * kUnits));
    if constexpr (!kLow) return high;
    return add(high, load(p.r_low + g * kUnits, Full{}));
  }
};

// A cell works on a block of units in two passes, what the first one leaves for the second in
// between: an activation of an activation is a chain too long to overlap with its neighbours'.
constexpr int64_t kBlockUnits = 4 * kUnits;
using Between = float[2][kBlockUnits];

template <int kParts>
struct LstmCell : Gates<4, kParts> {
  using G = Gates<4, kParts>;
  template <typename Tail>
  TAE_VEC static void first(const Place& p, float* between, Tail tail) {
    float* c = p.t.c + p.r * p.t.state_stride + p.u;
    const VF i = sigmoid(G::both(p, 0));
    const VF f = sigmoid(G::both(p, 1));
    const VF g = tanh(G::both(p, 2));
    store(between, sigmoid(G::both(p, 3)), Full{});
    store(c, add(mul(f, load(c, tail)), mul(i, g)), tail);
  }
  template <typename Tail>
  TAE_VEC static VF second(const Place& p, const float* between, Tail tail) {
    return mul(load(between, Full{}), tanh(load(p.t.c + p.r * p.t.state_stride + p.u, tail)));
  }
};

template <int kParts>
struct GruCell : Gates<3, kParts> {
  using G = Gates<3, kParts>;
  template <typename Tail>
  TAE_VEC static void first(const Place& p, float* between, Tail) {
    const VF reset = sigmoid(add(G::input(p, 0), G::recurrent(p, 0)));
    const VF z = sigmoid(add(G::input(p, 1), G::recurrent(p, 1)));
    const VF inner = add(G::recurrent(p, 2), load(p.t.bias + p.column + 2 * kUnits, Full{}));
    store(between, z, Full{});
    store(between + kBlockUnits, add(G::input(p, 2), mul(reset, inner)), Full{});
  }
  template <typename Tail>
  TAE_VEC static VF second(const Place& p, const float* between, Tail tail) {
    const VF z = load(between, Full{});
    const VF n = tanh(load(between + kBlockUnits, Full{}));
    return add(n, mul(z, sub(load(p.t.h + p.r * p.t.state_stride + p.u, tail), n)));
  }
};

// Cells without a chain of activations.
template <int64_t kGates, int kParts>
struct ShortCell : Gates<kGates, kParts> {
  template <typename Tail>
  TAE_VEC static void first(const Place&, float*, Tail) {}
};

template <int kParts>
struct TanhCell : ShortCell<1, kParts> {
  template <typename Tail>
  TAE_VEC static VF second(const Place& p, const float*, Tail) {
    return tanh(Gates<1, kParts>::both(p, 0));
  }
};

template <int kParts>
struct ReluCell : ShortCell<1, kParts> {
  template <typename Tail>
  TAE_VEC static VF second(const Place& p, const float*, Tail) {
    return max(vf(0.f), Gates<1, kParts>::both(p, 0));
  }
};

template <int kParts>
struct Projection : ShortCell<1, kParts> {
  template <typename Tail>
  TAE_VEC static VF second(const Place& p, const float*, Tail) {
    return Gates<1, kParts>::recurrent(p, 0);
  }
};

// Calls body(place, unit of the block, tail) for the vectors of a block of row r.
template <typename Cell, typename Body>
TAE_VEC void for_vectors(const GateTile& t, int64_t r, int64_t begin, Body body) {
  const VF row_scale = vf(t.row_scale[r]);
  const int64_t end = begin + kBlockUnits < t.units ? begin + kBlockUnits : t.units;
  for (int64_t u = begin; u < end; u += kLanes) {
    const int64_t column = u / kUnits * kUnits * Cell::kColumns + u % kUnits;
    const Place p = {t,
                     row_scale,
                     r,
                     u,
                     column,
                     t.acc + r * t.acc_stride + column,
                     t.x == nullptr ? nullptr : t.x + r * t.x_stride + column,
                     t.x_low == nullptr ? nullptr : t.x_low + r * t.x_low_stride + column,
                     t.r_low == nullptr ? nullptr : t.r_low + r * t.r_low_stride + column};
    const int64_t left = end - u;
    if (left >= kLanes) {
      body(p, u - begin, Full{});
    } else {
      body(p, u - begin, Part(left));
    }
  }
}

template <typename Cell>
[[gnu::noinline]] void run_cell(const GateTile& tile) {
  const GateTile t = tile;  // no store reaches it
  Between between;
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t begin = 0; begin < t.units; begin += kBlockUnits) {
      for_vectors<Cell>(t, r, begin,
                        [&](const Place& p, int64_t at, auto tail)
                            __attribute__((always_inline)) { Cell::first(p, between[0] + at, tail); });
      for_vectors<Cell>(t, r, begin,
                        [&](const Place& p, int64_t at, auto tail) __attribute__((always_inline)) {
                          const VF h = Cell::second(p, between[0] + at, tail);
                          store(p.t.h + r * p.t.state_stride + p.u, h, tail);
                          if (p.t.y != nullptr) store(p.t.y + r * p.t.y_stride + p.u, h, tail);
                        });
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
