#include "engines/native/sparse_pack.h"

#include <algorithm>
#include <numeric>

namespace tae::native {

PackedSparse::PackedSparse(const LinearProblem& p, bool gathers)
    : n_(p.n), k_(p.k), by_rows_(p.sparse->block_rows == 1), column_sum_(static_cast<size_t>(p.n)) {
  if (by_rows_)
    pack_rows(*p.sparse);
  else
    pack_columns(*p.sparse, gathers);
}

size_t PackedSparse::bytes() const {
  return values_.size() + places_.size() + 2 * segments_.size() +
         4 * (offsets_.size() + spots_.size() + column_sum_.size()) + sizeof(Rows4) * rows4_.size() +
         sizeof(Rows8) * rows8_.size() + 8 * (first_.size() + slot_.size());
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

// Of blocks [begin, end), those of the first one's slot end here.
int64_t PackedSparse::slot_end(const BlockSparse& w, int64_t begin, int64_t end) const {
  const int64_t segment = w.columns[begin] / kernels::kSegment, most = std::min(end, begin + kernels::kSlot);
  int64_t last = begin + 1;
  while (last < most && w.columns[last] / kernels::kSegment == segment) ++last;
  return last;
}

void PackedSparse::pack_slot(const BlockSparse& w, int64_t begin, int64_t end) {
  const int64_t slot = static_cast<int64_t>(segments_.size()) - slot_.back();
  segments_.push_back(static_cast<uint16_t>(w.columns[begin] / kernels::kSegment));
  for (int64_t i = 0; i < kernels::kSlot; ++i)
    places_.push_back(begin + i < end ? static_cast<uint8_t>(w.columns[begin + i] % kernels::kSegment)
                                      : uint8_t{0});
  for (int64_t j = 0; 8 * j < end - begin; ++j)
    spots_.push_back(static_cast<uint32_t>(slot * (kernels::kSlot / 8) + j));
}

// Values and offsets of blocks [begin, end) of a row of blocks.
void PackedSparse::pack_pairs(const BlockSparse& w, int64_t row, int64_t begin, int64_t end) {
  const size_t first = offsets_.size(), pairs = static_cast<size_t>(end - begin + 7) / 8;
  offsets_.resize(first + 8 * pairs);
  values_.resize(8 * offsets_.size());
  for (int64_t b = begin; b < end; ++b) {
    const size_t at = first + static_cast<size_t>(b - begin);
    offsets_[at] = static_cast<uint32_t>(w.columns[b] * kernels::kTableLine);
    for (int64_t r = 0; r < std::min<int64_t>(8, n_ - 8 * row); ++r) {
      values_[at / 8 * 64 + static_cast<size_t>(8 * r) + at % 8] = w.values[8 * b + r];
      column_sum_[static_cast<size_t>(8 * row + r)] += w.values[8 * b + r];
    }
  }
}

// Eight columns of eight rows are a pair of groups; an even number of pairs for each row
// of blocks.
void PackedSparse::pack_columns(const BlockSparse& w, bool gathers) {
  const int64_t block_rows = (n_ + 7) / 8;
  for (int64_t i = 0; i < block_rows; ++i) {
    if (i % (kChunkRows / 8) == 0) {
      first_.push_back(i);
      slot_.push_back(static_cast<int64_t>(segments_.size()));
    }
    const int64_t before = static_cast<int64_t>(offsets_.size()) / 4;
    for (int64_t b = w.offsets[i], end; b < w.offsets[i + 1]; b = end) {
      end = gathers ? slot_end(w, b, w.offsets[i + 1]) : w.offsets[i + 1];
      if (gathers) pack_slot(w, b, end);
      pack_pairs(w, i, b, end);
    }
    if (offsets_.size() % 16 != 0) {
      offsets_.resize(offsets_.size() + 8);
      values_.resize(8 * offsets_.size());
      if (gathers) spots_.push_back(spots_.back());
    }
    rows8_.push_back({before, static_cast<int64_t>(offsets_.size()) / 4 - before});
    most_slots_ = std::max(most_slots_, static_cast<int64_t>(segments_.size()) - slot_.back());
  }
  first_.push_back(block_rows);
  slot_.push_back(static_cast<int64_t>(segments_.size()));
  values_.shrink_to_fit();
  offsets_.shrink_to_fit();
  places_.shrink_to_fit();
}

}  // namespace tae::native
