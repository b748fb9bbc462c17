#include "engines/native/sparse_pack.h"

#include <algorithm>
#include <numeric>

namespace tae::native {

PackedSparse::PackedSparse(const LinearProblem& p)
    : n_(p.n), k_(p.k), by_rows_(p.sparse->block_rows == 1), column_sum_(static_cast<size_t>(p.n)) {
  if (by_rows_)
    pack_rows(*p.sparse);
  else
    pack_columns(*p.sparse);
}

size_t PackedSparse::bytes() const {
  return values_.size() + 4 * (offsets_.size() + column_sum_.size()) + sizeof(Rows4) * rows4_.size() +
         sizeof(Rows8) * rows8_.size() + 8 * first_.size();
}

// The rows of a chunk are sorted by length, so that four neighbours need little padding.
void PackedSparse::pack_rows(const BlockSparse& w) {
  const auto length = [&](int64_t row) { return row < n_ ? w.offsets[row + 1] - w.offsets[row] : 0; };
  int64_t steps = 0;
  first_.push_back(0);
  for (int64_t chunk = 0; chunk < chunks(); ++chunk) {
    const int64_t rows = std::min(kChunkRows, n_ - chunk * kChunkRows);
    std::vector<int64_t> order(static_cast<size_t>((rows + 3) / 4 * 4));
    std::iota(order.begin(), order.end(), chunk * kChunkRows);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
    for (size_t i = 0; i < order.size(); i += 4) {
      Rows4 group{steps, length(order[i]), {}};
      for (int r = 0; r < 4; ++r) group.local[r] = static_cast<uint8_t>(order[i + r] - chunk * kChunkRows);
      rows4_.push_back(group);
      steps += group.steps;
    }
    first_.push_back(static_cast<int64_t>(rows4_.size()));
  }
  values_.resize(static_cast<size_t>(16 * steps));
  offsets_.resize(static_cast<size_t>(4 * steps));
  for (int64_t chunk = 0; chunk < chunks(); ++chunk) {
    for (int64_t i = first(chunk); i < first(chunk + 1); ++i) {
      const Rows4& group = rows4_[static_cast<size_t>(i)];
      for (int r = 0; r < 4; ++r) {
        const int64_t row = chunk * kChunkRows + group.local[r];
        for (int64_t s = 0; s < length(row); ++s) {
          const int64_t block = w.offsets[row] + s;
          const size_t at = static_cast<size_t>(4 * (group.begin + s) + r);
          offsets_[at] = static_cast<uint32_t>(w.columns[block] * kernels::kQuadLine);
          for (int j = 0; j < 4; ++j) {
            values_[4 * at + j] = w.values[4 * block + j];
            column_sum_[static_cast<size_t>(row)] += w.values[4 * block + j];
          }
        }
      }
    }
  }
}

// Four columns of eight rows are one group; a multiple of four groups for each row of blocks.
void PackedSparse::pack_columns(const BlockSparse& w) {
  const int64_t block_rows = (n_ + 7) / 8;
  int64_t groups = 0;
  for (int64_t i = 0; i < block_rows; ++i) {
    const int64_t count = (w.offsets[i + 1] - w.offsets[i] + 15) / 16 * 4;
    rows8_.push_back({groups, count});
    groups += count;
  }
  for (int64_t chunk = 0; chunk <= chunks(); ++chunk)
    first_.push_back(std::min(chunk * (kChunkRows / 8), block_rows));
  values_.resize(static_cast<size_t>(32 * groups));
  offsets_.resize(static_cast<size_t>(4 * groups));
  for (int64_t i = 0; i < block_rows; ++i) {
    for (int64_t b = w.offsets[i]; b < w.offsets[i + 1]; ++b) {
      const int64_t at = 4 * rows8_[static_cast<size_t>(i)].begin + (b - w.offsets[i]);
      offsets_[static_cast<size_t>(at)] = static_cast<uint32_t>(w.columns[b] * kernels::kTableLine);
      for (int64_t r = 0; r < std::min<int64_t>(8, n_ - 8 * i); ++r) {
        values_[static_cast<size_t>(at / 4 * 32 + 4 * r + at % 4)] = w.values[8 * b + r];
        column_sum_[static_cast<size_t>(8 * i + r)] += w.values[8 * b + r];
      }
    }
  }
}

}  // namespace tae::native
