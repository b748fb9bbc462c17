// Panels of activations and the way from accumulators to the output, at each level.
#include "kernels/matmul.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <vector>

#include "kernels/gemm_block.h"
#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace {

// A matrix [k][columns] in one of the two orders, its last element at the guard.
struct Matrix {
  Matrix(std::mt19937& rng, int64_t k, int64_t columns, bool along_columns, int64_t gap)
      : bytes(k == 0 ? 0
                     : ((along_columns ? k : columns) - 1) * ((along_columns ? columns : k) + gap) +
                           (along_columns ? columns : k)) {
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random_int(rng, 0, 255));
    source.data = bytes.data();
    source.k = k;
    source.columns = columns;
    source.row_stride = along_columns ? columns + gap : 1;
    source.column_stride = along_columns ? 1 : k + gap;
    source.is_unsigned = rng() % 2 != 0;
  }
  int value(int64_t k, int64_t column) const {
    const uint8_t b = source.data[k * source.row_stride + column * source.column_stride];
    return source.is_unsigned ? b - 128 : static_cast<int8_t>(b);
  }
  Guarded<uint8_t> bytes;
  PanelSource source;
};

}  // namespace

TEST_CASE("pack_panel: quads of columns, zeros behind the end of k", "[matmul]") {
  std::mt19937 rng(2);
  for (Isa isa : kernel_levels())
    for (int64_t k : {0, 1, 3, 4, 5, 15, 16, 17, 63, 64, 65, 128, 200})
      for (int64_t columns : {1, 2, 15, 16, 17, 48, 63, 64})
        for (bool along_columns : {false, true}) {
          const Matrix m(rng, k, columns, along_columns, (k + columns) % 3 * 5);
          const int64_t quads = (k + 3) / 4 + (columns % 2 ? 0 : 5);
          alignas(64) int8_t panel[56 * kQuadBytes];
          std::fill_n(panel, quads * kQuadBytes, int8_t{99});
          pack_panel(m.source, quads, panel, isa);
          int64_t wrong = 0;
          for (int64_t q = 0; q < quads; ++q)
            for (int64_t c = 0; c < columns; ++c)
              for (int64_t i = 0; i < 4; ++i) {
                const int expected = 4 * q + i < k ? m.value(4 * q + i, c) : 0;
                wrong += panel[q * kQuadBytes + 4 * c + i] != expected;
              }
          INFO("k " << k << " columns " << columns << " along columns " << along_columns);
          CHECK(wrong == 0);
        }
}

TEST_CASE("matmul_finish: equals the scalar rule, writes nothing else", "[matmul]") {
  const PostOp relu{PostOp::Kind::relu, 0.f, 0.f};
  for (Isa isa : kernel_levels()) {
    std::mt19937 rng(4);
    for (int64_t cols = 1; cols <= 200; ++cols) {
      const int64_t rows = 3;
      Guarded<int32_t> raw(rows * cols), column_term(cols), row_term(rows);
      Guarded<uint8_t> out(rows * cols, cols % 2 ? Edge::kStart : Edge::kEnd);
      for (int32_t& v : raw) v = random_int(rng, -3'000'000, 3'000'000);
      for (int32_t& v : column_term) v = random_int(rng, -100'000, 100'000);
      for (int32_t& v : row_term) v = random_int(rng, -100'000, 100'000);
      MatmulFinish f;
      f.dtype = cols % 3 ? DType::qu8 : DType::qs8;
      f.scale = random_float(rng, 1e-5f, 1e-4f);
      // Beyond the bounds of the fast division as well.
      f.output_scale = cols % 5 == 0 ? 1e-30f : random_float(rng, 0.01f, 1.f);
      f.output_zero_point = random_int(rng, quant_min(f.dtype), quant_max(f.dtype));
      f.post_ops = &relu;
      f.num_post_ops = cols % 2;
      const MatmulTile t{raw.data(), cols, rows, cols, column_term.data(), row_term.data(), out.data(), cols};
      {
        const HostileFloatEnv env;
        matmul_finish(isa)(f, t);
        REQUIRE(env.intact());
      }
      int64_t wrong = 0;
      for (int64_t i = 0; i < rows * cols; ++i) {
        float r = static_cast<float>(raw[i] - column_term[i % cols] - row_term[i / cols]) * f.scale;
        if (f.num_post_ops != 0) r = std::max(r, 0.f);
        const double q = static_cast<double>(std::nearbyintf(r / f.output_scale)) + f.output_zero_point;
        const int y = static_cast<int>(std::clamp<double>(q, quant_min(f.dtype), quant_max(f.dtype)));
        wrong += static_cast<uint8_t>(y) != out[i];
      }
      INFO("cols " << cols);
      CHECK(wrong == 0);
    }
  }
}
