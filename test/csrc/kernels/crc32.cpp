// crc32 at every level against its definition bit by bit, on any number of threads.
#include "kernels/crc32.h"

#include <ATen/Parallel.h>

#include <catch2/catch_test_macros.hpp>
#include <random>
#include <vector>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::test;

namespace {

uint32_t by_definition(uint32_t start, const uint8_t* data, size_t size) {
  uint32_t state = ~start;
  for (size_t i = 0; i < size; ++i) {
    state ^= data[i];
    for (int bit = 0; bit < 8; ++bit) state = (state & 1) != 0 ? state >> 1 ^ 0xedb88320u : state >> 1;
  }
  return ~state;
}

}  // namespace

TEST_CASE("crc32: the check value of the definition", "[crc32]") {
  const char text[] = "123456789";
  for (Isa isa : kernel_levels())
    CHECK(kernels::crc32(isa, 0, reinterpret_cast<const uint8_t*>(text), 9) == 0xcbf43926u);
}

TEST_CASE("crc32: every size, alignment and start", "[crc32]") {
  std::mt19937 rng(1);
  for (Isa isa : kernel_levels()) {
    for (int64_t size = 0; size < 400; ++size) {
      Guarded<uint8_t> data(size, size % 2 ? Edge::kStart : Edge::kEnd);
      for (uint8_t& b : data) b = static_cast<uint8_t>(rng());
      const uint32_t start = size % 3 ? static_cast<uint32_t>(rng()) : 0;
      INFO(name_of(isa) << " size " << size);
      REQUIRE(kernels::crc32(isa, start, data.data(), size) == by_definition(start, data.data(), size));
    }
  }
}

TEST_CASE("crc32: long data on 1, 2 and 3 threads", "[crc32]") {
  std::mt19937 rng(2);
  const int before = at::get_num_threads();
  for (size_t size : {size_t{2} << 20, (size_t{5} << 20) + 13}) {
    std::vector<uint8_t> data(size);
    for (uint8_t& b : data) b = static_cast<uint8_t>(rng());
    const uint32_t expected = by_definition(7, data.data(), size);
    for (Isa isa : kernel_levels()) {
      for (int threads : {1, 2, 3}) {
        at::set_num_threads(threads);
        REQUIRE(kernels::crc32(isa, 7, data.data(), size) == expected);
      }
    }
  }
  at::set_num_threads(before);
}
