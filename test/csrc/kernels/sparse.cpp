// Sparse kernels on rows that end where memory does, every level: where bytes go, and products of one row.
#include "kernels/sparse.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <random>
#include <vector>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace tae::kernels {
extern const SparseKernels sparse_kernels__avx512vnni;
}

namespace {

// With that of AVX512-VNNI without VBMI, which sparse_kernels() hides on CPUs that have both.
std::vector<const SparseKernels*> tables() {
  std::vector<const SparseKernels*> tables;
  for (Isa isa : kernel_levels()) tables.push_back(&sparse_kernels(isa));
  if (!usable(Isa::avx512_vnni)) return tables;
  tables.push_back(&sparse_kernels__avx512vnni);
  tables.push_back(&sparse_kernels(Isa::avx512_vnni));
  return tables;
}

template <typename T>
void fill(std::mt19937& rng, Guarded<T>& x) {
  for (T& v : x) v = static_cast<T>(rng());
}

}  // namespace

TEST_CASE("sparse: rows are turned, and those behind them are 0", "[sparse]") {
  std::mt19937 rng(1);
  for (const SparseKernels* table : tables()) {
    const SparseKernels& k = *table;
    for (int64_t quads : {1, 3, 15, 16, 17, 40})
      for (int64_t rows : {1, 2, 15, 16, 17, 31, 32, 33, 64}) {
        INFO(k.name << ", " << rows << " rows of " << quads << " quads");
        Guarded<uint8_t> x(rows * 4 * quads, rows % 2 == 0 ? Edge::kStart : Edge::kEnd);
        fill(rng, x);
        const int64_t stride = 4 * quads, whole = (rows + 15) / 16 * 16;
        const auto value = [&](int64_t m, int64_t i) { return m < rows ? x[m * stride + i] : uint8_t{0}; };
        int64_t wrong = 0;
        Guarded<uint8_t> bytes(4 * quads * kByteLine), lines(quads * kQuadLine);
        k.to_bytes(x.data(), stride, rows, quads, bytes.data());
        for (int64_t i = 0; i < 4 * quads; ++i)
          for (int64_t m = 0; m < kByteRows; ++m)
            wrong += bytes[i * kByteLine + 16 * (m / 4 % 4) + 4 * (m / 16) + m % 4] != value(m, i);
        if (rows <= kQuadRows) {
          k.to_quads(x.data(), stride, rows, quads, lines.data());
          for (int64_t q = 0; q < quads; ++q)
            for (int64_t m = 0; m < whole; ++m)
              for (int64_t j = 0; j < 4; ++j)
                wrong += lines[q * kQuadLine + 4 * m + j] != value(m, 4 * q + j);
        }
        REQUIRE(wrong == 0);
      }
  }
}

TEST_CASE("sparse: one row by eight rows of blocks, from a table or gathered", "[sparse]") {
  std::mt19937 rng(2);
  for (const SparseKernels* table : tables()) {
    const SparseKernels& k = *table;
    REQUIRE((k.to_table == nullptr) == (k.gather != nullptr));
    for (int64_t slots : {1, 2, 5, 8}) {
      const int64_t width = 3 * kSegment, groups = slots * kSlot / 4;
      Guarded<uint8_t> x(width), places(slots * kSlot), quads(slots * kSlot);
      Guarded<int8_t> values(32 * groups);
      Guarded<uint32_t> offsets(4 * groups), spots(groups / 2), shifted(width * kTableLine / 4);
      std::vector<uint16_t> segments(static_cast<size_t>(slots));
      std::vector<SlotRun> runs;
      Guarded<int32_t> c(16);
      fill(rng, x);
      fill(rng, places);
      fill(rng, values);
      std::vector<int32_t> products;  // [pairs][8]
      for (uint16_t& s : segments) s = static_cast<uint16_t>(rng() % 3);
      std::sort(segments.begin(), segments.end());
      for (uint16_t s : segments) {
        if (runs.empty() || runs.back().segment != s) runs.push_back({s, 0});
        ++runs.back().slots;
      }
      for (int64_t i = 0; i < slots * kSlot; ++i) {
        const int64_t column = segments[static_cast<size_t>(i / kSlot)] * kSegment + places[i];
        offsets[i] = static_cast<uint32_t>(column * kTableLine);
        if (i % 8 == 0) spots[i / 8] = static_cast<uint32_t>(i / 8);
        products.resize(static_cast<size_t>(i / 8 + 1) * 8);
        for (int64_t r = 0; r < 8; ++r)
          products[static_cast<size_t>(i / 8 * 8 + r)] += values[i / 8 * 64 + 8 * r + i % 8] * x[column];
      }
      const void* input = shifted.data();
      if (k.gather == nullptr) {
        k.to_table(x.data(), width, shifted.data());
      } else {
        k.gather({places.data(), runs.data(), static_cast<int64_t>(runs.size())}, x.data(), quads.data());
        for (int64_t i = 0; i < slots * kSlot; ++i)
          REQUIRE(quads[i] == x[segments[static_cast<size_t>(i / kSlot)] * kSegment + places[i]]);
        input = quads.data();
      }
      // As two rows of blocks, one of which may be empty.
      const int32_t all = static_cast<int32_t>(groups / 2);
      for (const int32_t first : {0, 2, all / 4 * 2, all}) {
        const int32_t pairs[] = {first, all - first};
        k.gemv8({values.data(), offsets.data(), spots.data(), 2 * first}, pairs, 2, input, c.data());
        int32_t expected[16] = {};
        for (int64_t i = 0; i < 8 * int64_t{all}; ++i)
          expected[i / 8 < first ? i % 8 : 8 + i % 8] += products[static_cast<size_t>(i)];
        for (int64_t r = 0; r < 16; ++r) {
          INFO(k.name << ", " << slots << " slots, " << first << " pairs first, row " << r);
          REQUIRE(c[r] == expected[r]);
        }
      }
    }
  }
}

TEST_CASE("sparse: groups of four rows by quads, stored and added", "[sparse]") {
  std::mt19937 rng(3);
  for (const SparseKernels* table : tables()) {
    const SparseKernels& k = *table;
    for (int64_t quads : {int64_t{1}, int64_t{17}, kPartQuads})
      for (int64_t rows : {1, 8, 9, 16, 17, 32})
        for (bool add : {false, true}) {
          INFO(k.name << ", " << rows << " rows of " << quads << " quads, add " << add);
          const int32_t steps[] = {0, 1, 3, static_cast<int32_t>(quads)};
          const int64_t total = 4 + quads;
          Guarded<SparseGroup4> groups(4);
          Guarded<int8_t> values(16 * total);
          Guarded<uint16_t> offsets(4 * total);
          Guarded<uint8_t> xt(quads * kQuadLine);
          Guarded<int32_t> c(16 * kQuadRows);
          fill(rng, values);
          fill(rng, xt);
          fill(rng, c);
          for (int64_t g = 0; g < 4; ++g) {
            groups[g].steps = steps[g];
            for (int64_t r = 0; r < 4; ++r) groups[g].local[r] = static_cast<uint8_t>((7 * (4 * g + r)) % 16);
          }
          for (uint16_t& o : offsets)
            o = static_cast<uint16_t>(rng() % static_cast<unsigned>(quads) * (kQuadLine / 8));
          std::vector<int32_t> expected(16 * kQuadRows);
          for (int64_t g = 0, at = 0; g < 4; at += steps[g++])
            for (int64_t r = 0; r < 4; ++r)
              for (int64_t m = 0; m < rows; ++m) {
                const int64_t to = groups[g].local[r] * kQuadRows + m;
                uint32_t sum = add ? static_cast<uint32_t>(c[to]) : 0;
                for (int64_t s = 4 * at + r; s < 4 * (at + steps[g]); s += 4)
                  for (int64_t j = 0; j < 4; ++j)
                    sum += static_cast<uint32_t>(values[4 * s + j] * xt[8 * offsets[s] + 4 * m + j]);
                expected[static_cast<size_t>(to)] = static_cast<int32_t>(sum);
              }
          k.rows4({values.data(), offsets.data(), groups.data(), 4}, xt.data(), rows, add, c.data());
          int64_t wrong = 0;
          for (int64_t row = 0; row < 16; ++row)
            for (int64_t m = 0; m < rows; ++m) {
              const int64_t at = row * kQuadRows + m;
              wrong += c[at] != expected[static_cast<size_t>(at)];
            }
          REQUIRE(wrong == 0);
        }
  }
}
