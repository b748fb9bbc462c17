// Block-sparse weights in the layouts of kernels/sparse.h.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engines/linear.h"
#include "kernels/sparse.h"

namespace tae::native {

constexpr int64_t kChunkRows = 64;  // weight rows whose accumulators are one tile

class PackedSparse {
 public:
  // gathers: 8x1 blocks are cut into the slots of kernels' gather().
  PackedSparse(const LinearProblem& p, bool gathers);

  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  int64_t quads() const { return (k_ + 3) / 4; }
  int64_t chunks() const { return (n_ + kChunkRows - 1) / kChunkRows; }
  bool by_rows() const { return by_rows_; }  // 1x4; otherwise 8x1
  const int32_t* column_sum() const { return column_sum_.data(); }
  size_t bytes() const;
  // Quads of weights that one input row meets, padding included.
  int64_t products() const { return static_cast<int64_t>(values_.size()) / 4; }

  // 1x4: the groups of a part of a chunk, of rows with about equally many blocks in the part.
  struct Rows4 {
    int64_t begin;  // in steps
    int64_t first;  // group
    int64_t count;
  };
  // 1x4: ranges of kPartQuads quads of columns; the first one has every row of the chunk.
  int64_t parts() const {
    return std::max<int64_t>(1, (quads() + kernels::kPartQuads - 1) / kernels::kPartQuads);
  }
  kernels::SparseRows4 rows4(int64_t chunk, int64_t part) const {
    const Rows4& r = rows4_[static_cast<size_t>(chunk * parts() + part)];
    return {values_.data() + 16 * r.begin, places4_.data() + 4 * r.begin, groups4_.data() + r.first, r.count};
  }
  // 8x1: range of rows of blocks that belongs to a chunk.
  int64_t first(int64_t chunk) const { return first_[static_cast<size_t>(chunk)]; }
  // The rows 8 i .. 8 i + 7 of the whole weight.
  kernels::SparseRows8 rows8(int64_t i) const {
    const int64_t begin = begin8_[static_cast<size_t>(i)];
    const uint32_t* spots = spots_.empty() ? nullptr : spots_.data() + begin / 2;
    return {values_.data() + 32 * begin, offsets_.data() + 4 * begin, spots, 2 * *pairs8(i)};
  }
  // Pairs of groups in each row of blocks, from row i on.
  const int32_t* pairs8(int64_t i) const { return pairs8_.data() + i; }
  kernels::SparseGather gather(int64_t chunk) const {
    const Slots &s = slots_[static_cast<size_t>(chunk)], &next = slots_[static_cast<size_t>(chunk) + 1];
    return {places_.data() + s.slot * kernels::kSlot, runs_.data() + s.run, next.run - s.run};
  }
  // Bytes that kernels' gather() fills for a chunk, at most.
  int64_t gathered_bytes() const { return most_slots_ * kernels::kSlot; }

 private:
  struct Slots {
    int64_t slot, run;
  };
  void pack_rows(const BlockSparse& w);
  void pack_part(const BlockSparse& w, int64_t chunk, int64_t part, std::vector<int64_t>& next);
  void pack_columns(const BlockSparse& w, bool gathers);
  int64_t slot_end(const BlockSparse& w, int64_t begin, int64_t end) const;
  void pack_slot(const BlockSparse& w, int64_t begin, int64_t end, std::vector<uint16_t>& segments);
  void sort_slots(const std::vector<uint16_t>& segments, size_t first_spot);
  void pack_pairs(const BlockSparse& w, int64_t row, int64_t begin, int64_t end);

  int64_t n_;
  int64_t k_;
  bool by_rows_;
  std::vector<int8_t> values_;
  std::vector<uint16_t> places4_;               // 1x4
  std::vector<kernels::SparseGroup4> groups4_;  // 1x4
  std::vector<uint32_t> offsets_;               // 8x1
  std::vector<uint32_t> spots_;                 // 8x1
  std::vector<uint8_t> places_;                 // 8x1
  std::vector<kernels::SlotRun> runs_;          // 8x1
  std::vector<Slots> slots_;                    // 8x1, where those of a chunk begin; [chunks + 1]
  int64_t most_slots_ = 0;                      // 8x1, of a chunk
  std::vector<Rows4> rows4_;
  std::vector<int64_t> begin8_;      // 8x1, first group of each row of blocks
  std::vector<int32_t> pairs8_;      // 8x1, pairs of groups of each
  std::vector<int64_t> first_;       // 8x1, [chunks + 1]
  std::vector<int32_t> column_sum_;  // [n], sum_k w[n][k]
};

}  // namespace tae::native
