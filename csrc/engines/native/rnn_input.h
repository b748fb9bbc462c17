// The input's side of a recurrent layer: one int8 GEMM a chunk of time for each part of W_ih, in
// the column order of the recurrent weights. Without per_row the scale of all steps is found first,
// and the GEMM has integer rows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engines/input_rows.h"
#include "engines/linear.h"
#include "engines/native/rnn_matrix.h"
#include "engines/rnn.h"

namespace tae {

// Steps [begin, end), counted from the direction's own start.
struct RnnChunk {
  int64_t begin = 0;
  int64_t end = 0;
};

inline int64_t rnn_time(const RnnArgs& args, bool reverse, int64_t step) {
  return reverse ? args.steps - 1 - step : step;
}

// First row in x of the chunk's earliest time.
inline int64_t rnn_chunk_row(const RnnArgs& args, bool reverse, const RnnChunk& chunk) {
  return args.first_row(reverse ? args.steps - chunk.end : chunk.begin);
}

// What one direction has of a chunk.
struct RnnInputSide {
  // Whether the second parts are due for row n at a step (engines/rnn.h).
  bool due(int64_t step, int64_t n) const {
    return period == 1 || (step - (first_step.empty() ? 0 : first_step[n])) % period == 0;
  }
  // Of the second part at a due step, when it is held; those of a step follow each other.
  const float* low_row(int64_t step, int64_t n, int64_t columns) const {
    return low.data() + low_index[(step - begin) * batch + n] * columns;
  }

  std::vector<float> x;    // [rows of the chunk][columns], with the second part unless it is held
  std::vector<float> low;  // [due rows][columns], when held
  int64_t period = 1;
  std::vector<int64_t> first_step;  // [batch], or empty: zeros
  int64_t begin = 0;
  int64_t batch = 0;
  std::vector<int32_t> low_index;  // [steps][batch], -1 when not due
  std::vector<uint8_t> gathered;
  kernels::QParams qparams;                // of all steps, without per_row
  std::vector<uint8_t> quantized;          // [rows of the chunk][k], with those
  std::vector<kernels::RowParams> params;  // [rows of the chunk], all the same
};

class RnnInput {
 public:
  // False with a reason when no kernel takes it. `order` is the packed W_hh.
  bool init(const RnnProblem& p, const RnnMatrix& order, std::string* reason);
  void start(const RnnArgs& args, bool reverse, RnnInputSide* side) const;
  void run(const RnnArgs& args, bool reverse, const RnnChunk& chunk, RnnInputSide* side) const;

  int64_t macs_of_row() const { return k_ * columns_; }
  bool has_low() const { return low_ != nullptr; }
  bool held() const { return held_; }
  std::string description() const { return high_->description(); }
  size_t packed_bytes() const { return high_->packed_bytes() + (has_low() ? low_->packed_bytes() : 0); }

 private:
  void quantize(LinearArgs* linear, RnnInputSide* side) const;
  void run_due(const RnnArgs& args, bool reverse, const RnnChunk& chunk, RnnInputSide* side) const;

  LinearImplPtr high_, low_;
  std::optional<InputRows> together_;  // all steps with one scale
  int64_t k_ = 0;
  int64_t columns_ = 0;
  int64_t element_ = 4;
  int64_t period_ = 1;
  bool held_ = false;
};

}  // namespace tae
