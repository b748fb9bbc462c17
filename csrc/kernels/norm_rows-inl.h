// Rows of bytes for norm-inl.h: sums ahead, coefficients from them, and which way each row takes.
#pragma once

#include "kernels/norm_results-inl.h"

namespace tae::kernels {
namespace {

// From sums to coefficients in 3 steps, with rows between them: each is a chain of slow operations that
// these hide.
class RowCoefficients {
 public:
  RowCoefficients(const RowNorm& norm, const RealRows& input) : norm_(norm), input_(input) {}

  [[gnu::noinline]] void roots(const ByteSums (&sums)[kStatRows]) {
    row_stats(sums, norm_.count, u8_zero_point(), input_.scale, norm_.eps, norm_.centred, &stats_);
  }
  [[gnu::noinline]] void floats() {
    double factor[kStatRows];
    for (int64_t r = 0; r < kStatRows; ++r)
      factor[r] = static_cast<double>(input_.scale) * (1. / stats_.root[r]);
    for (int64_t r = 0; r < kStatRows; ++r) a_[r] = static_cast<float>(factor[r]);
    for (int64_t r = 0; r < kStatRows; ++r)
      b_[r] = norm_.centred ? static_cast<float>(-stats_.mean[r] * factor[r]) : 0.f;
  }
  [[gnu::noinline]] void words(Coefficients* c) const {
    RowWords words[kStatRows];
    row_words(a_, b_, norm_.count, u8_zero_point(), words);
    for (int64_t r = 0; r < kStatRows; ++r) c[r] = {a_[r], b_[r], words[r]};
  }

 private:
  int32_t u8_zero_point() const { return input_.zero_point + shift_of(input_.dtype); }

  const RowNorm& norm_;
  const RealRows& input_;
  RowStats stats_;
  float a_[kStatRows], b_[kStatRows];
};

// Rows in blocks of kStatRows. Sums run two blocks ahead, so that a block's coefficients are there when its
// turn comes.
template <Bytes kBytes>
class ByteRows {
 public:
  ByteRows(const RowNorm& norm, const RealRows& input, int64_t rows, const NormOutput& out)
      : norm_(norm), input_(input), rows_(rows), finish_(out.finish), dst_(out.dst) {
    const bool folded = is_quantized(finish_.dtype) && folds(finish_);
    factor_ = folded ? finish_.inverse_scale : 1.f;
    if (folded) finish_.inverse_scale = 1.f;
  }

  // Row by row, with nothing kept for the next.
  TAE_VEC void run_single() {
    const bool takes = takes_words(finish_, input_.dtype);
    const RowUnits units = takes ? units_of(norm_, finish_, factor_) : RowUnits();
    RowCoefficients next(norm_, input_);
    for (int64_t row = 0; row < rows_; ++row) {
      ByteSums sums[kStatRows];
      sum_rows(row, 1, sums);
      next.roots(sums);
      next.floats();
      Coefficients* c = coefficients(0);
      next.words(c);
      const uint8_t* from = row_of(input_, row);
      if (units.unit != 0 && c->words.factor != 0) {
        single_word_row<kBytes>(norm_, finish_, from, c->words, units, factor_, dst_of(row));
      } else {
        normalize_bytes(norm_, finish_, input_, from, *c, factor_, dst_of(row));
      }
    }
  }

  TAE_VEC void run(float* scratch) {
    const LaneRoom room(scratch, norm_.count);
    lanes_ = arrange(norm_, factor_, room);
    if (takes_words(finish_, input_.dtype)) words_ = arrange_row_words(finish_, room, lanes_.most_weight);
    RowCoefficients next(norm_, input_);
    for (int64_t first = 0; first < kAhead && first < rows_; first += kStatRows) {
      ByteSums sums[kStatRows];
      sum_rows(first, kStatRows, sums);
      next.roots(sums);
      next.floats();
      next.words(coefficients(first));
    }
    ByteSums sums[2][kStatRows];
    for (int64_t first = 0; first < rows_; first += kStatRows) {
      ByteSums(&ahead)[kStatRows] = sums[first / kStatRows % 2];
      for (ByteSums& s : ahead) s = {};
      const bool follows = first > 0 && first + kStatRows < rows_;
      for (int64_t r = 0; r < kStatRows; r += kTogether) {
        normalize(first + r, coefficients(first) + r, ahead + r);
        if (!follows) continue;
        // Not right behind the last row: a vector of sums waits until all of them are in the cache.
        if (r == 0) next.roots(sums[(first / kStatRows + 1) % 2]);
        if (r == 2) next.floats();
        if (r == 4) next.words(coefficients(first + kStatRows));
      }
    }
  }

 private:
  static constexpr int64_t kAhead = 2 * kStatRows;

  Coefficients* coefficients(int64_t first) { return ring_[first / kStatRows % 2]; }

  // Those of `count` rows that are there.
  TAE_VEC void sum_rows(int64_t first, int64_t count, ByteSums* sums) const {
    for (int64_t r = 0; r < count && first + r < rows_; ++r)
      sums_of<kBytes>(row_of(input_, first + r), norm_.count, sums + r);
  }

  bool fits(const Coefficients& c) const {
    const float most = (255.f * std::fabs(c.a) + std::fabs(c.b)) * lanes_.most_weight + lanes_.most_bias;
    return fits_lanes(finish_, most);
  }

  bool has_words(const Coefficients& c) const { return words_.unit != 0 && c.words.factor != 0; }

  // kTogether rows from `first` on, those that are there, and the sums of as many kAhead rows further on.
  TAE_VEC void normalize(int64_t first, const Coefficients* c, ByteSums* sums) const {
    const bool all = first + kTogether <= rows_;
    const bool in_words = all && has_words(c[0]) && has_words(c[kTogether - 1]);
    const bool in_floats =
        all && !has_words(c[0]) && !has_words(c[kTogether - 1]) && fits(c[0]) && fits(c[kTogether - 1]);
    const bool whole = in_words || in_floats;
    const auto lanes = [&](auto rows, auto summed, int64_t r) {
      if (has_words(c[r])) {
        word_rows<kBytes, decltype(rows)::value, decltype(summed)::value>(
            norm_, input_, row_of(input_, first + r), c + r, words_, finish_, dst_of(first + r),
            row_of(input_, first + r + kAhead), sums + r);
        return;
      }
      lane_rows<kBytes, decltype(rows)::value, decltype(summed)::value>(
          norm_, input_, row_of(input_, first + r), c + r, lanes_, finish_, dst_of(first + r),
          row_of(input_, first + r + kAhead), sums + r);
    };
    if (whole && norm_.count <= kLaneRow && first + kAhead + kTogether <= rows_) {
      lanes(Constant<kTogether>(), Constant<1>(), 0);
      return;
    }
    sum_rows(first + kAhead, kTogether, sums);
    if (whole) {
      lanes(Constant<kTogether>(), Constant<0>(), 0);
      return;
    }
    for (int64_t r = 0; r < kTogether && first + r < rows_; ++r) {
      if (has_words(c[r]) || fits(c[r])) {
        lanes(Constant<1>(), Constant<0>(), r);
      } else {
        normalize_bytes(norm_, finish_, input_, row_of(input_, first + r), c[r], factor_, dst_of(first + r));
      }
    }
  }

  uint8_t* dst_of(int64_t row) const {
    return static_cast<uint8_t*>(row_at(dst_, finish_.dtype, row, norm_.count));
  }

  const RowNorm& norm_;
  const RealRows& input_;
  const int64_t rows_;
  Finish finish_;
  void* const dst_;
  float factor_;
  LaneParameters lanes_{};
  RowParameterWords words_;
  Coefficients ring_[2][kStatRows];
};

[[gnu::noinline]] void byte_rows_run(const RowNorm& norm, const RealRows& input, int64_t rows, float* scratch,
                                     const NormOutput& out) noexcept {
  with_bytes(input.dtype, [&](auto kind) {
    ByteRows<decltype(kind)::value> work(norm, input, rows, out);
    if (scratch == nullptr) {
      work.run_single();
    } else {
      work.run(scratch);
    }
  });
}

}  // namespace
}  // namespace tae::kernels
