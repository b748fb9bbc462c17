#include "engines/native/rnn_input.h"

#include <algorithm>

#include "core/parallel.h"

namespace tae {

bool RnnInput::init(const RnnProblem& p, const RnnMatrix& order, std::string* reason) {
  const int64_t gates = gates_of(p.kind);
  std::vector<float> bias(gates * p.hidden);
  for (int64_t i = 0; i < gates * p.hidden; ++i) {
    const bool apart = p.kind == RnnKind::gru && i >= 2 * p.hidden;
    bias[i] =
        (p.bias_ih == nullptr ? 0.f : p.bias_ih[i]) + (p.bias_hh == nullptr || apart ? 0.f : p.bias_hh[i]);
  }
  k_ = p.input;
  columns_ = order.columns();
  element_ = static_cast<int64_t>(size_of(p.input_dtype));
  period_ = p.low_period;
  held_ = p.ih.parts() == 2 && p.low_input_held && p.low_period > 1;
  const auto made = [&](const int8_t* rows, const float* row_scale, const float* row_bias,
                        PostOps post_ops) -> LinearImplPtr {
    const auto weight = order.in_column_order<int8_t>(rows, p.input, 0);
    const auto scale = order.in_column_order(row_scale, 1, 1.f);
    std::vector<float> ordered;
    if (row_bias != nullptr) ordered = order.in_column_order(row_bias, 1, 0.f);
    LinearProblem linear;
    linear.k = p.input;
    linear.n = columns_;
    linear.weight = weight.data();
    linear.weight_scale = scale.data();
    linear.weight_scale_size = columns_;
    linear.bias = row_bias == nullptr ? nullptr : ordered.data();
    linear.dynamic = true;
    linear.dynamic_quant = {p.per_row, /*symmetric=*/false, p.reduce_range};
    linear.input_dtype = p.input_dtype;
    if (!p.per_row) {
      together_.emplace(linear);
      linear.dynamic = false;
      linear.qparams_in_call = true;
      linear.input_dtype = DType::qu8;
    }
    linear.output_dtype = DType::f32;
    linear.post_ops = std::move(post_ops);
    Result<LinearImplPtr> result = make_linear_native(linear);
    if (!result) *reason = result.reason();
    return result ? std::move(result.value()) : nullptr;
  };
  const bool sum = p.ih.parts() == 2 && !held_;
  high_ = made(p.ih.high, p.ih.scale, bias.data(), sum ? PostOps{{PostOp::Kind::add}} : PostOps{});
  if (p.ih.parts() == 2) low_ = made(p.ih.low, p.ih.low_scale, nullptr, {});
  return high_ != nullptr && (p.ih.parts() == 1 || low_ != nullptr);
}

void RnnInput::start(const RnnArgs& args, bool reverse, RnnInputSide* side) const {
  side->period = period_;
  side->batch = args.batch;
  if (together_) {
    LinearArgs all;
    all.m = args.first_row(args.steps - 1) + args.rows_of(args.steps - 1);
    all.input = args.x;
    all.input_stride = k_;
    side->qparams = together_->begin(all).tensor;
  }
  if (period_ == 1 || !reverse || args.batch_sizes == nullptr) return;
  side->first_step.resize(args.batch);
  for (int64_t n = 0; n < args.batch; ++n) side->first_step[n] = args.first_step(reverse, n);
}

void RnnInput::run(const RnnArgs& args, bool reverse, const RnnChunk& chunk, RnnInputSide* side) const {
  const int64_t last = rnn_time(args, reverse, reverse ? chunk.begin : chunk.end - 1);
  const int64_t first = rnn_chunk_row(args, reverse, chunk);
  LinearArgs linear;
  linear.m = args.first_row(last) + args.rows_of(last) - first;
  linear.input = static_cast<const uint8_t*>(args.x) + first * k_ * element_;
  linear.input_stride = k_;
  side->x.resize(linear.m * columns_);
  linear.output = side->x.data();
  if (together_) quantize(&linear, side);
  if (has_low() && !held_) {
    low_->run(linear);
    linear.other = linear.output;  // each value is read before its sum is written
  }
  high_->run(linear);
  if (held_) run_due(args, reverse, chunk, side);
}

// The chunk's rows with the scale and zero point of all steps.
void RnnInput::quantize(LinearArgs* linear, RnnInputSide* side) const {
  constexpr int64_t kRowsBytes = 16 << 10;  // of a thread at least
  if (linear->m == 0) return;
  side->quantized.resize(linear->m * k_);
  side->params.resize(linear->m);
  const InputRows::Call call{linear, side->qparams};
  parallel_for(linear->m, std::max<int64_t>(1, kRowsBytes / k_), [&](int64_t begin, int64_t end) {
    together_->quantize(call, begin, end - begin, side->quantized.data() + begin * k_, k_,
                        side->params.data() + begin);
  });
  linear->input = side->quantized.data();
  linear->input_scale = side->params[0].scale;
  linear->input_zero_point = side->params[0].zero_point;
}

// The second part of due rows alone, which are copied together.
void RnnInput::run_due(const RnnArgs& args, bool reverse, const RnnChunk& chunk, RnnInputSide* side) const {
  side->begin = chunk.begin;
  side->low_index.assign((chunk.end - chunk.begin) * args.batch, -1);
  const int64_t bytes = k_ * element_;
  const auto* x = static_cast<const uint8_t*>(args.x);
  side->gathered.clear();
  int32_t count = 0;
  for (int64_t step = chunk.begin; step < chunk.end; ++step) {
    const int64_t time = rnn_time(args, reverse, step);
    for (int64_t n = 0; n < args.rows_of(time); ++n) {
      if (!side->due(step, n)) continue;
      side->low_index[(step - chunk.begin) * args.batch + n] = count++;
      const uint8_t* row = x + (args.first_row(time) + n) * bytes;
      side->gathered.insert(side->gathered.end(), row, row + bytes);
    }
  }
  side->low.resize(count * columns_);
  if (count == 0) return;
  LinearArgs linear;
  linear.m = count;
  linear.input = side->gathered.data();
  linear.input_stride = k_;
  linear.output = side->low.data();
  low_->run(linear);
}

}  // namespace tae
