#include "kernels/lookup.h"

#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <random>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

TEST_CASE("lookup: every byte gives its entry", "[lookup]") {
  for (Isa isa : {Isa::portable, Isa::avx512_vnni}) {
    if (isa != Isa::portable && !usable(isa)) continue;
    const LookupBytes look_up = lookup_bytes(isa);
    std::mt19937 rng(1);
    for (int64_t n = 0; n <= 600; n += n < 300 ? 1 : 43) {
      const Edge edge = n % 2 ? Edge::kStart : Edge::kEnd;
      Guarded<uint8_t> table(256, edge), x(n, edge), y(n, edge);
      for (uint8_t& b : table) b = static_cast<uint8_t>(random_int(rng, 0, 255));
      for (uint8_t& b : x) b = static_cast<uint8_t>(random_int(rng, 0, 255));
      look_up(table.data(), x.data(), n, y.data());
      for (int64_t i = 0; i < n; ++i) {
        INFO(name_of(isa) << " n " << n << " i " << i);
        REQUIRE(y[i] == table[x[i]]);
      }
    }
  }
}

TEST_CASE("lookup: rows with gaps between them", "[lookup]") {
  for (Isa isa : {Isa::portable, Isa::avx512_vnni}) {
    if (isa != Isa::portable && !usable(isa)) continue;
    std::mt19937 rng(2);
    for (int64_t n = 0; n <= 600; n += n < 300 ? 7 : 43) {
      const int64_t rows = random_int(rng, 0, 5), step = n + random_int(rng, 0, 3);
      Guarded<uint8_t> table(256), x(rows * n), y(rows * step);
      for (uint8_t& b : table) b = static_cast<uint8_t>(random_int(rng, 0, 255));
      for (uint8_t& b : x) b = static_cast<uint8_t>(random_int(rng, 0, 255));
      for (uint8_t& b : y) b = 77;
      lookup_rows(isa)(table.data(), x.data(), rows, n, y.data(), step);
      for (int64_t i = 0; i < rows * step; ++i) {
        INFO(name_of(isa) << " n " << n << " rows " << rows << " step " << step << " i " << i);
        REQUIRE(y[i] == (i % step < n ? table[x[i / step * n + i % step]] : 77));
      }
    }
  }
}
