// Block-sparse weights in the layouts of kernels/sparse.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engines/linear.h"
#include "kernels/sparse.h"

namespace tae::native {

constexpr int64_t kChunkRows = 64;  // weight rows whose accumulators are one tile

class PackedSparse {
 public:
  explicit PackedSparse(const LinearProblem& p);

  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  int64_t quads() const { return (k_ + 3) / 4; }
  int64_t chunks() const { return (n_ + kChunkRows - 1) / kChunkRows; }
  bool by_rows() const { return by_rows_; }  // 1x4; otherwise 8x1
  const int32_t* column_sum() const { return column_sum_.data(); }
  size_t bytes() const;
  // Quads of weights that one input row meets, padding included.
  int64_t products() const { return static_cast<int64_t>(values_.size()) / 4; }

  // 1x4: four rows of a chunk with about equally many blocks. local: their places in it.
  struct Rows4 {
    int64_t begin;  // in steps
    int64_t steps;
    uint8_t local[4];
  };
  // 8x1: the rows 8 i .. 8 i + 7 of the whole weight.
  struct Rows8 {
    int64_t begin;  // in groups
    int64_t groups;
  };
  // Range of rows4() or rows8() that belongs to a chunk.
  int64_t first(int64_t chunk) const { return first_[static_cast<size_t>(chunk)]; }
  kernels::SparseRows4 rows4(int64_t i, const uint8_t** local) const {
    const Rows4& r = rows4_[static_cast<size_t>(i)];
    *local = r.local;
    return {values_.data() + 16 * r.begin, offsets_.data() + 4 * r.begin, r.steps};
  }
  kernels::SparseRows8 rows8(int64_t i) const {
    const Rows8& r = rows8_[static_cast<size_t>(i)];
    return {values_.data() + 32 * r.begin, offsets_.data() + 4 * r.begin, r.groups};
  }

 private:
  void pack_rows(const BlockSparse& w);
  void pack_columns(const BlockSparse& w);

  int64_t n_;
  int64_t k_;
  bool by_rows_;
  std::vector<int8_t> values_;
  std::vector<uint32_t> offsets_;
  std::vector<Rows4> rows4_;
  std::vector<Rows8> rows8_;
  std::vector<int64_t> first_;       // [chunks + 1]
  std::vector<int32_t> column_sum_;  // [n], sum_k w[n][k]
};

}  // namespace tae::native
