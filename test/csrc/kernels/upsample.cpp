#include "kernels/upsample.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdint>
#include <random>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace {

int value_of(uint8_t byte, DType d) { return d == DType::qs8 ? static_cast<int8_t>(byte) : byte; }

// Neighbours of a position and the weight of the second in quarters.
struct Neighbours {
  int64_t first, second;
  int weight;
};

Neighbours neighbours(int64_t o, int64_t size) {
  const int64_t second = (o + 1) / 2;
  return {std::max<int64_t>(0, second - 1), std::min(second, size - 1), o % 2 ? 1 : 3};
}

}  // namespace

TEST_CASE("upsample: two lines between neighbours, ties to an even number of steps", "[upsample]") {
  const DoubleLines double_lines = kernels::double_lines(best_isa());
  if (double_lines == nullptr) SKIP("no AVX-512");
  std::mt19937 rng(1);
  for (int64_t channels = 1; channels <= 200; channels += channels < 130 ? 3 : 37) {
    const int64_t width = random_int(rng, 1, 70), count = width * channels;
    const Edge edge = channels % 2 ? Edge::kStart : Edge::kEnd;
    const DType dtype = rng() % 2 ? DType::qs8 : DType::qu8;
    const int zero_point = random_int(rng, quant_min(dtype), quant_max(dtype));
    Guarded<uint8_t> above(count, edge), below(count, edge), upper(2 * count, edge), lower(2 * count, edge);
    for (uint8_t& b : above) b = static_cast<uint8_t>(random_int(rng, 0, 255));
    for (uint8_t& b : below) b = static_cast<uint8_t>(random_int(rng, 0, 255));
    double_lines(above.data(), below.data(), width, channels, dtype, zero_point, upper.data(), nullptr);
    double_lines(above.data(), below.data(), width, channels, dtype, zero_point, nullptr, lower.data());
    Guarded<uint8_t> both_upper(2 * count, edge), both_lower(2 * count, edge);
    double_lines(above.data(), below.data(), width, channels, dtype, zero_point, both_upper.data(),
                 both_lower.data());
    REQUIRE(std::equal(upper.begin(), upper.end(), both_upper.begin()));
    REQUIRE(std::equal(lower.begin(), lower.end(), both_lower.begin()));
    for (int64_t o = 0; o < 2 * width; ++o) {
      const Neighbours n = neighbours(o, width);
      for (int64_t c = 0; c < channels; ++c) {
        const auto along = [&](Guarded<uint8_t>& line) {
          const int a = value_of(line[n.first * channels + c], dtype);
          const int b = value_of(line[n.second * channels + c], dtype);
          return (4 - n.weight) * (a - zero_point) + n.weight * (b - zero_point);
        };
        const auto rounded = [&](int sixteenths) {
          return zero_point + static_cast<int>(std::nearbyint(sixteenths / 16.));
        };
        INFO("channels " << channels << " width " << width << " o " << o << " c " << c);
        REQUIRE(value_of(upper[o * channels + c], dtype) == rounded(3 * along(above) + along(below)));
        REQUIRE(value_of(lower[o * channels + c], dtype) == rounded(along(above) + 3 * along(below)));
      }
    }
  }
}
