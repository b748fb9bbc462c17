// States of a recurrent layer as the next pass reads them: rows of q(h) with a scale each.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engines/native/rnn_step.h"
#include "kernels/choose_qparams.h"

namespace tae {

void RnnRows::resize(const RnnMatrix& m, int64_t rows, int64_t row_multiple, bool together) {
  stride = m.packed.k_pad() | kernels::kKMultiple;
  q.assign(((rows + row_multiple - 1) / row_multiple + 1) * row_multiple * stride, 128);
  scale.assign(rows, 1.f);
  if (together) column_offset = m.column_offset;
}

// A NaN or infinity gives a NaN scale and leaves the integers as they are.
void NativeRnn::quantize_row(const float* h, int64_t count, RnnRows* rows, int64_t row) const {
  float low, high;
  rows_.min_max_f32(h, count, &low, &high);
  float scale = low;
  if (!std::isnan(low)) {
    const float m = -low > high ? -low : high;
    scale = m / 127.f;
    if (scale < std::numeric_limits<float>::min()) scale = m == 0.f ? 1.f : std::numeric_limits<float>::min();
    rows_.quantize_full_f32(h, count, 1.f / scale, 128, rows->q.data() + row * rows->stride, rows->stride);
  }
  rows->scale[row] = scale;
}

// All rows with one scale and zero point; row(r) is null for zeros.
template <typename Row>
void NativeRnn::quantize_together(const RnnMatrix& m, int64_t count, int64_t rows, Row row,
                                  RnnRows* out) const {
  float low = 0.f, high = 0.f;
  for (int64_t r = 0; r < rows; ++r) {
    float a = 0.f, b = 0.f;
    if (const float* values = row(r); values != nullptr) rows_.min_max_f32(values, count, &a, &b);
    // A NaN range stays NaN: no comparison with it is true.
    low = low <= a ? low : a;
    high = high >= b ? high : b;
    if (std::isnan(low)) break;
  }
  const kernels::QParams q = kernels::tensor_qparams(low, high, /*symmetric=*/false, reduce_range_);
  std::fill_n(out->scale.begin(), rows, q.scale);
  if (std::isnan(q.scale)) return;
  const kernels::QRange range = kernels::dynamic_range(/*symmetric=*/false, reduce_range_);
  for (int64_t r = 0; r < rows; ++r) {
    uint8_t* to = out->q.data() + r * out->stride;
    if (const float* values = row(r); values != nullptr) {
      rows_.quantize_f32(values, count, 1.f / q.scale, q.zero_point, range.lo, range.hi, to, out->stride);
    } else {
      std::fill_n(to, count, static_cast<uint8_t>(q.zero_point));
    }
  }
  m.fill_column_offset(q.zero_point, out->column_offset.data());
}

// h for the rows of `step`, without per_row: those that the step before had from the output, as no
// thread writes there again, the others from h0.
void NativeRnn::quantize_active(const RnnArgs& args, RnnLane* lane, int64_t step, int buffer) const {
  const int64_t rows = args.rows_of(rnn_step_time(args, *lane, step));
  const int64_t before = step == 0 ? 0 : std::min(rows, args.rows_of(rnn_step_time(args, *lane, step - 1)));
  const float* y =
      step == 0 ? nullptr : lane->d.y + args.first_row(rnn_step_time(args, *lane, step - 1)) * args.y_stride;
  const float* h0 = lane->d.h0;
  RnnRows* h = &lane->h[buffer];
  quantize_together(
      hh_, output_, rows,
      [&](int64_t r) {
        return r < before ? y + r * args.y_stride : h0 == nullptr ? nullptr : h0 + r * output_;
      },
      h);
  for (int64_t r = before; r < rows; ++r)
    if (lane->broken[r]) h->scale[r] = std::numeric_limits<float>::quiet_NaN();
}

void NativeRnn::quantize_wide(const RnnArgs& args, RnnLane* lane, const RnnPart& part) const {
  if (!per_row_) {
    const float* wide = lane->wide.data();
    quantize_together(
        hr_, hidden_, rnn_active_end(args, *lane, part), [&](int64_t r) { return wide + r * hidden_; },
        &lane->wide_h[part.buffer]);
    return;
  }
  for (int64_t r = part.row_begin; r < rnn_active_end(args, *lane, part); ++r)
    quantize_row(lane->wide.data() + r * hidden_, hidden_, &lane->wide_h[part.buffer], r);
}

// For the next step, from the output: no thread writes there again.
void NativeRnn::quantize_h(const RnnArgs& args, RnnLane* lane, const RnnPart& part) const {
  if (part.step + 1 == args.steps) return;
  if (!per_row_) return quantize_active(args, lane, part.step + 1, part.buffer);
  const float* y = lane->d.y + args.first_row(rnn_step_time(args, *lane, part.step)) * args.y_stride;
  for (int64_t r = part.row_begin; r < rnn_active_end(args, *lane, part); ++r)
    quantize_row(y + r * args.y_stride, output_, &lane->h[part.buffer], r);
}

}  // namespace tae
