// The rule of engines/rnn.h as plain loops: the definition that `native` is compared with.
#include "engines/rnn.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engines/linear.h"
#include "engines/reference/rnn_rows.h"
#include "kernels/post_ops.h"
#include "kernels/vec_float_env.h"

namespace tae {
namespace {

using reference::copy;
using reference::Matrix;
using reference::QuantizedState;

float sigmoid(float x) { return kernels::apply_post_op({PostOp::Kind::sigmoid}, x, 0.f); }
float tanh_of(float x) { return kernels::apply_post_op({PostOp::Kind::tanh}, x, 0.f); }

// What second parts of the weights gave when they were last due for a row.
struct LowParts {
  std::vector<float> x, r;
};

class ReferenceRnn final : public RnnImpl {
 public:
  // low_input: the second parts of W_ih, or null.
  ReferenceRnn(const RnnProblem& p, LinearImplPtr input, LinearImplPtr low_input);
  void run(const RnnArgs& args, const RnnDirection* directions, int count) const override {
    for (int i = 0; i < count; ++i)
      static_cast<const ReferenceRnn*>(directions[i].impl)->run_direction(args, directions[i]);
  }
  const char* engine() const override { return "reference"; }
  std::string description() const override { return "scalar"; }
  size_t packed_bytes() const override { return hh_.bytes() + hr_.bytes() + 4 * bias_n_.size(); }

 private:
  [[gnu::noinline]] void run_direction(const RnnArgs& args, const RnnDirection& d) const;
  void input_side(const RnnArgs& args, int64_t row, bool due, std::vector<float>* x, LowParts* low) const;
  // h before a projection.
  std::vector<float> step(const float* x, const LowParts& low, const QuantizedState& s, const float* h,
                          float* c) const;
  std::vector<QuantizedState> quantize_rows(const std::vector<std::vector<float>>& rows) const;
  std::vector<std::vector<float>> projections(const std::vector<QuantizedState>& wide) const;
  std::vector<float> input_rows(const RnnArgs& args) const;

  RnnKind kind_;
  bool projected_;
  int64_t input_size_, hidden_, output_;
  DType input_dtype_;
  int64_t low_period_;
  bool low_input_held_;
  bool per_row_, reduce_range_;
  LinearImplPtr input_, low_input_;
  Matrix hh_, hr_;
  std::vector<float> bias_n_;  // GRU: b_hn, or zeros
};

ReferenceRnn::ReferenceRnn(const RnnProblem& p, LinearImplPtr input, LinearImplPtr low_input)
    : kind_(p.kind),
      projected_(p.projected()),
      input_size_(p.input),
      hidden_(p.hidden),
      output_(p.output),
      input_dtype_(p.input_dtype),
      low_period_(p.low_period),
      low_input_held_(p.low_input_held),
      per_row_(p.per_row),
      reduce_range_(p.reduce_range),
      input_(std::move(input)),
      low_input_(std::move(low_input)),
      hh_(p.hh, gates_of(p.kind) * p.hidden, p.output),
      bias_n_(p.hidden) {
  if (projected_) hr_ = Matrix(p.hr, p.output, p.hidden);
  if (p.kind == RnnKind::gru && p.bias_hh != nullptr)
    for (int64_t u = 0; u < hidden_; ++u) bias_n_[u] = p.bias_hh[2 * hidden_ + u];
}

void ReferenceRnn::input_side(const RnnArgs& args, int64_t row, bool due, std::vector<float>* x,
                              LowParts* low) const {
  LinearArgs linear;
  linear.m = 1;
  linear.input =
      static_cast<const uint8_t*>(args.x) + row * input_size_ * static_cast<int64_t>(size_of(input_dtype_));
  linear.input_stride = input_size_;
  linear.output = x->data();
  input_->run(linear);
  if (low_input_ == nullptr) return;
  if (due || !low_input_held_) {
    low->x.resize(x->size());
    linear.output = low->x.data();
    low_input_->run(linear);
  }
  for (size_t i = 0; i < x->size() && (kind_ == RnnKind::gru || !low_input_held_); ++i)
    (*x)[i] = (*x)[i] + low->x[i];
}

std::vector<float> ReferenceRnn::step(const float* x, const LowParts& low, const QuantizedState& s,
                                      const float* h, float* c) const {
  std::vector<float> out(hidden_);
  const auto recurrent = [&](int64_t g, int64_t u) {
    const float high = hh_.times(s, g * hidden_ + u);
    return low.r.empty() ? high : high + low.r[g * hidden_ + u];
  };
  // Of the gates of LSTM and RNN.
  const auto both = [&](int64_t g, int64_t u) {
    const float high = x[g * hidden_ + u] + hh_.times(s, g * hidden_ + u);
    return low.r.empty() ? high : high + low.r[g * hidden_ + u];
  };
  for (int64_t u = 0; u < hidden_; ++u) {
    if (kind_ == RnnKind::lstm) {
      const float i = sigmoid(both(0, u));
      const float f = sigmoid(both(1, u));
      const float g = tanh_of(both(2, u));
      const float o = sigmoid(both(3, u));
      const float kept = f * c[u];
      const float added = i * g;
      c[u] = kept + added;
      out[u] = o * tanh_of(c[u]);
    } else if (kind_ == RnnKind::gru) {
      const float r = sigmoid(x[u] + recurrent(0, u));
      const float z = sigmoid(x[hidden_ + u] + recurrent(1, u));
      const float inner = recurrent(2, u) + bias_n_[u];
      const float n = tanh_of(x[2 * hidden_ + u] + r * inner);
      out[u] = n + z * (h[u] - n);
    } else {
      const float sum = both(0, u);
      out[u] = kind_ == RnnKind::rnn_tanh ? tanh_of(sum) : (0.f > sum ? 0.f : sum);
    }
  }
  return out;
}

std::vector<QuantizedState> ReferenceRnn::quantize_rows(const std::vector<std::vector<float>>& rows) const {
  if (!per_row_) return reference::quantize_together(rows, reduce_range_);
  std::vector<QuantizedState> states;
  for (const std::vector<float>& row : rows)
    states.push_back(reference::quantize(row.data(), static_cast<int64_t>(row.size())));
  return states;
}

std::vector<std::vector<float>> ReferenceRnn::projections(const std::vector<QuantizedState>& wide) const {
  std::vector<std::vector<float>> rows;
  for (const QuantizedState& s : wide) {
    std::vector<float> h(output_);
    for (int64_t j = 0; j < output_; ++j) {
      h[j] = hr_.times(s, j);
      if (!hr_.low.empty()) h[j] = h[j] + hr_.low_times(s, j);
    }
    rows.push_back(std::move(h));
  }
  return rows;
}

// The input's side of all rows, which have one scale without per_row.
std::vector<float> ReferenceRnn::input_rows(const RnnArgs& args) const {
  LinearArgs linear;
  linear.m = args.first_row(args.steps - 1) + args.rows_of(args.steps - 1);
  linear.input = args.x;
  linear.input_stride = input_size_;
  std::vector<float> x(linear.m * gates_of(kind_) * hidden_);
  if (linear.m == 0) return x;
  linear.output = x.data();
  input_->run(linear);
  return x;
}

void ReferenceRnn::run_direction(const RnnArgs& args, const RnnDirection& d) const {
  const kernels::DefaultFloatEnv env;
  const int64_t columns = gates_of(kind_) * hidden_;
  std::vector<float> x(columns);
  const std::vector<float> all_x = per_row_ ? std::vector<float>() : input_rows(args);
  std::vector<LowParts> low(args.batch);
  std::vector<bool> broken(args.batch);  // c0 has a NaN
  std::copy_n(d.h0 == nullptr ? std::vector<float>(args.batch * output_).data() : d.h0, args.batch * output_,
              d.h);
  for (int64_t n = 0; n < args.batch && kind_ == RnnKind::lstm; ++n)
    for (int64_t u = 0; u < hidden_; ++u) {
      const float c = d.c0 == nullptr ? 0.f : d.c0[n * hidden_ + u];
      broken[n] = broken[n] || std::isnan(c);
      d.c[n * hidden_ + u] = c;
    }
  for (int64_t i = 0; i < args.steps; ++i) {
    const int64_t t = d.reverse ? args.steps - 1 - i : i;
    const int64_t rows = args.rows_of(t);
    std::vector<std::vector<float>> h(rows), out(rows);
    for (int64_t n = 0; n < rows; ++n) h[n] = copy(d.h + n * output_, output_);
    std::vector<QuantizedState> states = quantize_rows(h);
    for (int64_t n = 0; n < rows; ++n) {
      const int64_t row = args.first_row(t) + n;
      const bool due = (i - args.first_step(d.reverse, n)) % low_period_ == 0;
      if (per_row_) {
        input_side(args, row, due, &x, &low[n]);
      } else {
        std::copy_n(all_x.data() + row * columns, columns, x.data());
      }
      if (broken[n]) states[n].scale = std::numeric_limits<float>::quiet_NaN();
      broken[n] = false;
      if (due && !hh_.low.empty()) {
        low[n].r.resize(x.size());
        for (size_t j = 0; j < x.size(); ++j) {
          low[n].r[j] = hh_.low_times(states[n], static_cast<int64_t>(j));
          if (kind_ != RnnKind::gru && low_input_held_) low[n].r[j] = low[n].r[j] + low[n].x[j];
        }
      }
      float* c = kind_ == RnnKind::lstm ? d.c + n * hidden_ : nullptr;
      out[n] = step(x.data(), low[n], states[n], h[n].data(), c);
    }
    if (projected_) out = projections(quantize_rows(out));
    for (int64_t n = 0; n < rows; ++n) {
      std::copy_n(out[n].data(), output_, d.h + n * output_);
      std::copy_n(out[n].data(), output_, d.y + (args.first_row(t) + n) * args.y_stride);
    }
  }
}

[[gnu::noinline]] Result<RnnImplPtr> make(const RnnProblem& p) {
  const int64_t rows = gates_of(p.kind) * p.hidden;
  std::vector<float> bias(rows);
  for (int64_t i = 0; i < rows; ++i) {
    const bool apart = p.kind == RnnKind::gru && i >= 2 * p.hidden;
    bias[i] =
        (p.bias_ih == nullptr ? 0.f : p.bias_ih[i]) + (p.bias_hh == nullptr || apart ? 0.f : p.bias_hh[i]);
  }
  LinearProblem linear;
  linear.k = p.input;
  linear.n = rows;
  linear.weight = p.ih.high;
  linear.weight_scale = p.ih.scale;
  linear.weight_scale_size = rows;
  linear.bias = bias.data();
  linear.dynamic = true;
  linear.dynamic_quant = {p.per_row, /*symmetric=*/false, p.reduce_range};
  linear.input_dtype = p.input_dtype;
  linear.output_dtype = DType::f32;
  Result<LinearImplPtr> input = make_linear_reference(linear);
  if (!input) return Refusal{input.reason()};
  LinearImplPtr low_input;
  if (p.ih.low != nullptr) {
    linear.weight = p.ih.low;
    linear.weight_scale = p.ih.low_scale;
    linear.bias = nullptr;
    low_input = std::move(make_linear_reference(linear).value());
  }
  return RnnImplPtr(std::make_shared<ReferenceRnn>(p, std::move(input.value()), std::move(low_input)));
}

}  // namespace

Result<RnnImplPtr> make_rnn_reference(const RnnProblem& p) {
  const kernels::DefaultFloatEnv env;  // for the sums of the biases
  return make(p);
}

}  // namespace tae
