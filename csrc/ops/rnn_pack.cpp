#include "ops/rnn_pack.h"

#include <cmath>
#include <limits>

#include "core/env.h"
#include "core/fork.h"
#include "core/qparams.h"
#include "engines/rnn_parts.h"

namespace tae {
namespace {

using at::Tensor;

const char* state_name(RnnKind kind) {
  switch (kind) {
    case RnnKind::lstm:
      return "lstm";
    case RnnKind::gru:
      return "gru";
    case RnnKind::rnn_tanh:
      return "rnn_tanh";
    case RnnKind::rnn_relu:
      return "rnn_relu";
  }
  return "?";
}

std::vector<float> row_scales(const RnnCell& cell, int64_t i, int64_t rows) {
  std::vector<float> values = scale_values(cell.scale_arg(i), cell.scale(i));
  if (values.size() == 1) values.resize(rows, values[0]);
  return values;
}

// Weight i as engines take it, with what the view refers to.
struct Matrix {
  // `two_parts`: the second part of int8 is zeros rather than none.
  Matrix(const RnnCell& cell, int64_t i, int64_t rows, int64_t columns, bool two_parts = false);

  RnnWeight view;

 private:
  Tensor dense_;
  std::vector<float> scale_;
  RnnParts parts_;
};

Matrix::Matrix(const RnnCell& cell, int64_t i, int64_t rows, int64_t columns, bool two_parts)
    : dense_(dense(cell.weight_arg(i), cell.weight(i))), scale_(row_scales(cell, i, rows)) {
  const Arg arg = cell.weight_arg(i);
  if (dense_.scalar_type() == at::kChar) {
    view = {span_of<int8_t>(arg, dense_).first(rows * columns), scale_.data()};
    if (two_parts) {
      parts_.low.resize(rows * columns);
      view.low = parts_.low.data();
      view.low_scale = scale_.data();
    }
    return;
  }
  if (dense_.scalar_type() == at::kShort) {
    const int16_t* values = span_of<int16_t>(arg, dense_).first(rows * columns);
    for (int64_t j = 0; j < rows * columns; ++j)
      TAE_CHECK_VALUE(values[j] <= kMaxRnnInt16, arg, c10::str("be at most ", kMaxRnnInt16), values[j]);
    parts_ = split_weight(values, scale_.data(), rows, columns);
  } else {
    const auto* bits =
        reinterpret_cast<const uint16_t*>(span_of<at::BFloat16>(arg, dense_).first(rows * columns));
    for (int64_t j = 0; j < rows * columns; ++j)
      TAE_CHECK_VALUE((bits[j] & 0x7f80) != 0x7f80, arg, "be finite", "a NaN or infinity");
    parts_ = split_weight(bits, scale_.data(), rows, columns);
  }
  for (const float s : parts_.scale)
    TAE_CHECK_VALUE(std::isfinite(s), arg, "be finite when multiplied by its scale", "an infinity");
  view = parts_.view();
}

PackedState pack(const RnnCell& cell, DType input_dtype) {
  const RnnWeights& w = cell.w;
  RnnProblem p;
  p.kind = w.kind;
  p.input = cell.weight(0).size(1);
  p.hidden = w.hidden();
  p.output = w.output();
  p.input_dtype = input_dtype;
  p.per_row = w.rule.per_row;
  p.reduce_range = w.rule.reduce_range;
  const int64_t rows = gates_of(w.kind) * p.hidden;
  const Matrix ih(cell, 0, rows, p.input), hh(cell, 1, rows, p.output, ih.view.parts() == 2);
  p.ih = ih.view;
  p.hh = hh.view;
  if (p.hh.parts() == 2 && cell.weight(1).scalar_type() != at::kBFloat16) {
    // The first layer's input is data: nothing says that it changes slowly.
    p.low_period = cell.first_layer() ? kRnnFirstLowPeriod : kRnnLowPeriod;
    p.low_input_held = p.ih.parts() == 2 && !cell.first_layer();
  }
  std::vector<float> bias_ih, bias_hh;
  if (cell.biased()) {
    bias_ih = finite_values(cell.bias_arg(0), cell.bias(0));
    bias_hh = finite_values(cell.bias_arg(1), cell.bias(1));
    p.bias_ih = bias_ih.data();
    p.bias_hh = bias_hh.data();
    for (int64_t i = 0; i < rows; ++i)
      TAE_CHECK_VALUE(std::abs(static_cast<double>(bias_ih[i]) + bias_hh[i]) <=
                          static_cast<double>(std::numeric_limits<float>::max()),
                      cell.bias_arg(1), "have a finite sum b_ih + b_hh", "an infinity");
  }
  std::optional<Matrix> hr;
  if (w.projected()) p.hr = hr.emplace(cell, 2, p.output, p.hidden).view;
  SerialAfterFork serial;
  const Settings& s = settings();
  const Engine forced = s.engine.load();
  TORCH_CHECK_NOT_IMPLEMENTED(
      forced == Engine::automatic || forced == Engine::native || forced == Engine::reference,
      "torch_ao::", w.op, ": no engine accepts this call:\n  ", name_of(forced),
      ": has no recurrent int8 layer with a scale for each row; native and reference have");
  PackedState state;
  const auto take = [&state](Result<RnnImplPtr> made, const char* name) {
    if (!made) {
      state.refused.emplace_back(name, made.reason());
      return false;
    }
    RnnImplPtr impl = std::move(made.value());
    state.engine = impl->engine();
    state.description = impl->description();
    state.packed_bytes = impl->packed_bytes();
    state.impl = std::move(impl);
    return true;
  };
  const bool done = (forced != Engine::reference && take(make_rnn_native(p), "native")) ||
                    (forced != Engine::native && take(make_rnn_reference(p), "reference"));
  TORCH_CHECK_NOT_IMPLEMENTED(done, "torch_ao::", w.op, ": no engine accepts this call:\n  ",
                              state.refused.back().first, ": ", state.refused.back().second);
  if (s.log_dispatch.load(std::memory_order_relaxed))
    log_line(c10::str("pack ", w.op, " weights=", cell.weight(0).sizes(), ",", cell.weight(1).sizes(), " ",
                      name_of(input_dtype), " engine=", state.engine, " kernel='", state.description,
                      "' bytes=", state.packed_bytes));
  return state;
}

}  // namespace

PackedStatePtr packed(const RnnCell& cell, DType input_dtype) {
  StateQuery query(state_name(cell.w.kind), cell.weight(0));
  query.add(cell.scale(0));
  query.add(cell.weight(1));
  query.add(cell.scale(1));
  if (cell.biased()) {
    query.add(cell.bias(0));
    query.add(cell.bias(1));
  }
  if (cell.w.projected()) {
    query.add(cell.weight(2));
    query.add(cell.scale(2));
  }
  query.add(int64_t{static_cast<int>(input_dtype)} | int64_t{cell.biased()} << 8 |
            int64_t{cell.w.projected()} << 9 | int64_t{cell.first_layer()} << 10 |
            int64_t{cell.w.rule.per_row} << 11 | int64_t{cell.w.rule.reduce_range} << 12);
  return find_or_pack(query, [&] { return pack(cell, input_dtype); });
}

}  // namespace tae
