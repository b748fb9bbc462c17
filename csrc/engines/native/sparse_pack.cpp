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
  return values_.size() + places_.size() + sizeof(kernels::SlotRun) * runs_.size() + 2 * places4_.size() +
         4 * (offsets_.size() + spots_.size() + pairs8_.size() + column_sum_.size()) +
         sizeof(kernels::SparseGroup4) * groups4_.size() + sizeof(Rows4) * rows4_.size() +
         8 * (begin8_.size() + first_.size()) + sizeof(Slots) * slots_.size();
}

void PackedSparse::pack_rows(const BlockSparse& w) {
  for (int64_t chunk = 0; chunk < chunks(); ++chunk) {
    const int64_t rows = std::min(kChunkRows, n_ - chunk * kChunkRows);
    std::vector<int64_t> next(static_cast<size_t>(rows));  // block of each row
    for (int64_t r = 0; r < rows; ++r) next[static_cast<size_t>(r)] = w.offsets[chunk * kChunkRows + r];
    for (int64_t part = 0; part < parts(); ++part) pack_part(w, chunk, part, next);
  }
  values_.shrink_to_fit();
  places4_.shrink_to_fit();
  groups4_.shrink_to_fit();
}

// The blocks of one part from `next` on, which moves behind them. Rows are sorted by how many
// they have, so that four neighbours need little padding.
void PackedSparse::pack_part(const BlockSparse& w, int64_t chunk, int64_t part, std::vector<int64_t>& next) {
  const int64_t first_row = chunk * kChunkRows, rows = static_cast<int64_t>(next.size());
  std::vector<int64_t> length(static_cast<size_t>((rows + 3) / 4 * 4));
  for (int64_t r = 0; r < rows; ++r) {
    int64_t end = next[static_cast<size_t>(r)];
    while (end < w.offsets[first_row + r + 1] && w.columns[end] < (part + 1) * kernels::kPartQuads) ++end;
    length[static_cast<size_t>(r)] = end - next[static_cast<size_t>(r)];
  }
  std::vector<size_t> order(length.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return length[a] > length[b]; });

  rows4_.push_back({static_cast<int64_t>(places4_.size()) / 4, static_cast<int64_t>(groups4_.size()), 0});
  for (size_t i = 0; i < order.size() && (part == 0 || length[order[i]] > 0); i += 4) {
    const size_t begin = places4_.size(), steps = static_cast<size_t>(length[order[i]]);
    places4_.resize(begin + 4 * steps);
    values_.resize(4 * places4_.size());
    kernels::SparseGroup4 group{static_cast<int32_t>(steps), {}};
    for (size_t r = 0; r < 4; ++r) {
      const size_t row = order[i + r];
      group.local[r] = static_cast<uint8_t>(row);
      for (int64_t s = 0; s < length[row]; ++s) {
        const int64_t block = next[row] + s;
        const size_t at = begin + 4 * static_cast<size_t>(s) + r;
        const int64_t line = w.columns[block] - part * kernels::kPartQuads;
        places4_[at] = static_cast<uint16_t>(line * (kernels::kQuadLine / 8));
        for (int64_t j = 0; j < 4; ++j) {
          values_[4 * at + static_cast<size_t>(j)] = w.values[4 * block + j];
          column_sum_[static_cast<size_t>(first_row) + row] += w.values[4 * block + j];
        }
      }
    }
    groups4_.push_back(group);
    ++rows4_.back().count;
  }
  for (size_t r = 0; r < next.size(); ++r) next[r] += length[r];
}

// Of blocks [begin, end), those of the first one's slot end here.
int64_t PackedSparse::slot_end(const BlockSparse& w, int64_t begin, int64_t end) const {
  const int64_t segment = w.columns[begin] / kernels::kSegment, most = std::min(end, begin + kernels::kSlot);
  int64_t last = begin + 1;
  while (last < most && w.columns[last] / kernels::kSegment == segment) ++last;
  return last;
}

// The next slot of the chunk, whose slots so far are in these segments.
void PackedSparse::pack_slot(const BlockSparse& w, int64_t begin, int64_t end,
                             std::vector<uint16_t>& segments) {
  const int64_t slot = static_cast<int64_t>(segments.size());
  segments.push_back(static_cast<uint16_t>(w.columns[begin] / kernels::kSegment));
  for (int64_t i = 0; i < kernels::kSlot; ++i)
    places_.push_back(begin + i < end ? static_cast<uint8_t>(w.columns[begin + i] % kernels::kSegment)
                                      : uint8_t{0});
  for (int64_t j = 0; 8 * j < end - begin; ++j)
    spots_.push_back(static_cast<uint32_t>(slot * (kernels::kSlot / 8) + j));
}

// Ends a chunk: its slots by segment, its spots (from first_spot on) where they went.
void PackedSparse::sort_slots(const std::vector<uint16_t>& segments, size_t first_spot) {
  std::vector<size_t> order(segments.size()), place(segments.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return segments[a] < segments[b]; });
  const std::vector<uint8_t> before(places_.end() - static_cast<int64_t>(segments.size()) * kernels::kSlot,
                                    places_.end());
  auto to = places_.end() - static_cast<int64_t>(before.size());
  for (size_t i = 0; i < order.size(); ++i) {
    place[order[i]] = i;
    to = std::copy_n(before.begin() + static_cast<int64_t>(order[i]) * kernels::kSlot, kernels::kSlot, to);
    const uint16_t segment = segments[order[i]];
    if (i == 0 || segment != segments[order[i - 1]]) runs_.push_back({segment, 0});
    ++runs_.back().slots;
  }
  constexpr uint32_t kSpots = kernels::kSlot / 8;
  for (size_t i = first_spot; i < spots_.size(); ++i)
    spots_[i] = static_cast<uint32_t>(place[spots_[i] / kSpots]) * kSpots + spots_[i] % kSpots;
  slots_.push_back(
      {static_cast<int64_t>(places_.size()) / kernels::kSlot, static_cast<int64_t>(runs_.size())});
  most_slots_ = std::max(most_slots_, static_cast<int64_t>(segments.size()));
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
  const int64_t block_rows = (n_ + 7) / 8, in_chunk = kChunkRows / 8;
  std::vector<uint16_t> segments;  // of the chunk's slots
  size_t first_spot = 0;
  slots_.push_back({0, 0});
  for (int64_t i = 0; i < block_rows; ++i) {
    if (i % in_chunk == 0) first_.push_back(i);
    const int64_t before = static_cast<int64_t>(offsets_.size()) / 4;
    for (int64_t b = w.offsets[i], end; b < w.offsets[i + 1]; b = end) {
      end = gathers ? slot_end(w, b, w.offsets[i + 1]) : w.offsets[i + 1];
      if (gathers) pack_slot(w, b, end, segments);
      pack_pairs(w, i, b, end);
    }
    if (offsets_.size() % 16 != 0) {
      offsets_.resize(offsets_.size() + 8);
      values_.resize(8 * offsets_.size());
      if (gathers) spots_.push_back(spots_.back());
    }
    begin8_.push_back(before);
    pairs8_.push_back(static_cast<int32_t>((static_cast<int64_t>(offsets_.size()) / 4 - before) / 2));
    if (i % in_chunk == in_chunk - 1 || i + 1 == block_rows) {
      sort_slots(segments, first_spot);
      segments.clear();
      first_spot = spots_.size();
    }
  }
  first_.push_back(block_rows);
  values_.shrink_to_fit();
  offsets_.shrink_to_fit();
  places_.shrink_to_fit();
}

}  // namespace tae::native
