// Recurrent layers on our own kernels: what a problem packs and the order of the work (rnn.cpp), the passes
// of a step over its matrices (rnn_step.cpp) and the states as the next pass reads them (rnn_rows.cpp).
//
// The input's side of the steps is one int8 GEMM a chunk of time, in the column order of the
// recurrent weights: gates of 16 units side by side. A step is then
// one pass over W_hh whose accumulators, still in L1, become the next state. The steps of
// a chunk run in one parallel region: directions and rows are independent; where they are
// too few, the threads share the units (each slice of W_hh stays in its core's L2) and
// meet at a barrier after each pass over a matrix. Behind it each thread quantizes all of
// h for itself, which is cheaper than to share it out and meet once more.
//
// Second parts of weights are matrices of their own. Their products, as floats, stand before the
// pass over the first parts, whose gates add them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "engines/native/rnn_input.h"
#include "engines/native/rnn_matrix.h"
#include "engines/rnn.h"
#include "kernels/gemm.h"
#include "kernels/rnn.h"
#include "kernels/rows.h"

namespace tae {

// Rows of q(h) with a scale each.
struct RnnRows {
  // together: all rows have one scale and zero point.
  void resize(const RnnMatrix& m, int64_t rows, int64_t row_multiple, bool together);
  // Rows from `row` for items [begin, end).
  RnnOperand operand(int64_t row, int64_t rows, int64_t begin, int64_t end) const {
    const int32_t* offset = column_offset.empty() ? nullptr : column_offset.data();
    return {q.data() + row * stride, stride, rows, begin, end, offset};
  }

  std::vector<uint8_t> q;  // [rows + padding][stride]
  int64_t stride = 0;
  std::vector<float> scale;            // [rows]
  std::vector<int32_t> column_offset;  // [columns], of the one zero point; without it empty, for 128
};

// What one direction keeps between steps.
struct RnnLane {
  RnnDirection d;
  // h as the next step reads it, and before a projection: one of each thread that shares the
  // units, or of each block of rows (threads do not write into each other's cache lines).
  std::vector<RnnRows> h, wide_h;
  std::vector<float> wide;  // [batch][hidden]
  RnnInputSide x;           // of the chunk
  // Second parts: of R, of the projection, and of a GRU's x where it is held. [batch][columns]
  std::vector<float> r_low, wide_low, x_low;
  std::vector<bool> broken;  // [batch], rows whose c0 has a NaN
};

// What one call of a phase works on.
struct RnnPart {
  int64_t step = 0;
  int64_t first_row = 0;  // of the chunk's x
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t item_begin = 0;
  int64_t item_end = 0;
  int buffer = 0;  // of RnnLane::h
};

inline int64_t rnn_step_time(const RnnArgs& args, const RnnLane& lane, int64_t step) {
  return rnn_time(args, lane.d.reverse, step);
}

// Rows of the part that its step has.
inline int64_t rnn_active_end(const RnnArgs& args, const RnnLane& lane, const RnnPart& part) {
  return std::min(part.row_end, args.rows_of(rnn_step_time(args, lane, part.step)));
}

using RnnAccumulators = std::vector<int32_t>;

class NativeRnn final : public RnnImpl {
 public:
  NativeRnn(const RnnProblem& p, Isa isa);
  [[gnu::noinline]] bool init_input(const RnnProblem& p, std::string* reason) {
    return input_.init(p, hh_, reason);
  }

  void run(const RnnArgs& args, const RnnDirection* directions, int count) const override;
  const char* engine() const override { return "native"; }
  std::string description() const override {
    return std::string("native ") + name_of(isa_) + " fused steps" + parts_text() + "; input " +
           input_.description();
  }
  size_t packed_bytes() const override {
    return input_.packed_bytes() + hh_.bytes() + hh_low_.bytes() + hr_.bytes() + hr_low_.bytes() +
           4 * bias_n_.size();
  }

 private:
  [[gnu::noinline]] void run_all(const RnnArgs& args, const RnnDirection* directions, int count) const;
  void start(const RnnArgs& args, const RnnDirection& d, RnnLane* lane) const;
  void renew(const RnnArgs& args, RnnLane* lane, const RnnPart& part, RnnAccumulators* acc) const;
  void gates(const RnnArgs& args, RnnLane* lane, const RnnPart& part, RnnAccumulators* acc) const;
  void project(const RnnArgs& args, RnnLane* lane, const RnnPart& part, RnnAccumulators* acc) const;
  void quantize_row(const float* h, int64_t count, RnnRows* rows, int64_t row) const;
  template <typename Row>
  void quantize_together(const RnnMatrix& m, int64_t count, int64_t rows, Row row, RnnRows* out) const;
  void quantize_active(const RnnArgs& args, RnnLane* lane, int64_t step, int buffer) const;
  void quantize_wide(const RnnArgs& args, RnnLane* lane, const RnnPart& part) const;
  void quantize_h(const RnnArgs& args, RnnLane* lane, const RnnPart& part) const;
  void run_rows(const RnnArgs& args, RnnLane* lane, RnnPart part, int64_t end, RnnAccumulators* acc) const;
  void run_units(const RnnArgs& args, std::vector<RnnLane>* lanes, const RnnChunk& chunk, int member,
                 int members, RnnAccumulators* acc) const;
  // Returns how many threads have a current h.
  int run_chunk(const RnnArgs& args, std::vector<RnnLane>* lanes, const RnnChunk& chunk, int current,
                std::vector<RnnAccumulators>* acc) const;
  const char* parts_text() const {
    if (!two_parts()) return "";
    return input_.has_low() ? ", weights in two parts" : ", W_hh in two parts";
  }
  bool two_parts() const { return hh_low_.items() > 0; }
  bool held_apart() const { return input_.held() && kind_ == RnnKind::gru; }
  int64_t macs_of_row() const {
    return (hh_.columns() + hh_low_.columns() / low_period_) * output_ +
           (hr_.columns() + hr_low_.columns()) * hidden_;
  }

  Isa isa_;
  RnnKind kind_;
  bool projected_;
  int64_t hidden_, output_, low_period_;
  bool per_row_, reduce_range_;
  RnnInput input_;
  RnnMatrix hh_, hh_low_, hr_, hr_low_;
  std::vector<float> bias_n_;  // GRU: [columns], b_hn in the columns of n
  const kernels::GemmKernels& gemm_;
  const kernels::RowKernels& rows_;
  const kernels::RnnKernels& cells_;
};

}  // namespace tae
