#include "kernels/transpose.h"

#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <random>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae::kernels;
using namespace tae::test;

TEST_CASE("transpose: every byte has its place, none outside is touched", "[transpose]") {
  std::mt19937 rng(1);
  for (int64_t rows : {1, 2, 3, 4, 5, 8, 15, 16, 17, 19, 31, 32, 33, 144}) {
    for (int64_t stride : {1, 2, 3, 15, 16, 17, 31, 63, 64, 65, 79, 128, 150, 259}) {
      const Edge edge = rows % 2 ? Edge::kStart : Edge::kEnd;
      Guarded<uint8_t> src(rows * stride, edge);
      for (uint8_t& b : src) b = static_cast<uint8_t>(random_int(rng, 0, 255));
      const int64_t end = random_int(rng, 1, stride), begin = random_int(rng, 0, end - 1);
      for (int64_t gap : {0, 1, 20}) {
        const int64_t step = rows + gap;
        Guarded<uint8_t> dst((end - begin) * step - gap, edge);
        transpose_bytes({src.data(), rows, stride}, begin, end, {dst.data(), step, dst.end()});
        for (int64_t c = begin; c < end; ++c)
          for (int64_t r = 0; r < rows; ++r) {
            INFO(rows << " rows of " << stride << ", column " << c << ", row " << r << ", gap " << gap);
            REQUIRE(dst[(c - begin) * step + r] == src[r * stride + c]);
          }
      }
    }
  }
}

TEST_CASE("transpose: floats, and the gaps between the rows stay", "[transpose]") {
  std::mt19937 rng(2);
  for (int64_t rows : {1, 3, 4, 5, 8, 30})
    for (int64_t columns : {1, 2, 3, 4, 6, 21, 32}) {
      const Edge edge = rows % 2 ? Edge::kStart : Edge::kEnd;
      const int64_t step = rows + random_int(rng, 0, 3);
      Guarded<float> src(rows * columns, edge), dst(columns * step, edge);
      for (float& x : src) x = static_cast<float>(random_int(rng, 1, 1 << 20));
      for (float& x : dst) x = -1;
      transpose_floats(src.data(), rows, columns, dst.data(), step);
      for (int64_t i = 0; i < dst.size(); ++i) {
        INFO(rows << " rows of " << columns << ", step " << step << ", element " << i);
        REQUIRE(dst[i] == (i % step < rows ? src[i % step * columns + i / step] : -1));
      }
    }
}
