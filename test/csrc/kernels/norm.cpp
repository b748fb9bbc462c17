#include "kernels/norm.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <random>
#include <vector>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace {

void fill(std::mt19937& rng, Guarded<uint8_t>& bytes) {
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random_int(rng, 0, 255));
}

void fill(std::mt19937& rng, Guarded<float>& values) {
  for (float& v : values) v = random_float(rng, -3.f, 5.f);
}

bool same(Guarded<uint8_t>& a, Guarded<uint8_t>& b) { return std::equal(a.begin(), a.end(), b.begin()); }

}  // namespace

TEST_CASE("norm: sums are exact", "[norm]") {
  for (Isa isa : kernel_levels()) {
    const NormKernels& k = norm_kernels(isa);
    std::mt19937 rng(1);
    for (int64_t n : {0, 1, 15, 63, 64, 65, 200, 700000}) {
      Guarded<uint8_t> x(n, n % 2 ? Edge::kStart : Edge::kEnd);
      fill(rng, x);
      if (n > 1000)
        for (uint8_t& b : x) b = 255;  // lanes of squares that must be folded in time
      ByteSums sums, expected;
      k.sums(x.data(), DType::qs8, n, &sums);
      for (uint8_t b : x) {
        const int64_t u = b ^ 0x80;
        expected.sum += u;
        expected.squares += u * u;
      }
      INFO(name_of(isa) << " n " << n);
      REQUIRE(sums.sum == expected.sum);
      REQUIRE(sums.squares == expected.squares);
    }
    for (int64_t channels : {1, 3, 16, 64}) {
      const int64_t rows = 70001;  // past one block
      Guarded<uint8_t> x(rows * channels, Edge::kEnd);
      for (uint8_t& b : x) b = 255;
      std::vector<ByteSums> sums(channels);
      k.column_sums(x.data(), DType::qu8, rows, channels, channels, sums.data());
      for (const ByteSums& s : sums) {
        REQUIRE(s.sum == rows * 255);
        REQUIRE(s.squares == rows * 255 * 255);
      }
    }
    for (int64_t channels : {1, 5, 64, 70, 1100}) {
      const int64_t rows = channels % 23, stride = channels + 3;
      Guarded<uint8_t> x(rows * stride, Edge::kEnd);
      fill(rng, x);
      std::vector<ByteSums> sums(channels);
      k.column_sums(x.data(), DType::qs8, rows, stride, channels, sums.data());
      for (int64_t c = 0; c < channels; ++c) {
        ByteSums expected;
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t u = x[r * stride + c] ^ 0x80;
          expected.sum += u;
          expected.squares += u * u;
        }
        REQUIRE(sums[c].sum == expected.sum);
        REQUIRE(sums[c].squares == expected.squares);
      }
    }
  }
}

TEST_CASE("norm: every level gives the portable one's bits", "[norm]") {
  const NormKernels& plain = norm_kernels(Isa::portable);
  for (Isa isa : kernel_levels()) {
    const NormKernels& k = norm_kernels(isa);
    std::mt19937 rng(2);
    for (int64_t n = 1; n <= 300; n += n < 140 ? 1 : 37) {
      const Edge edge = n % 2 ? Edge::kStart : Edge::kEnd;
      Guarded<uint8_t> x(2 * n, edge), y(2 * n, edge), z(2 * n, edge);
      Guarded<float> reals(2 * n, edge), weight(n, edge), bias(n, edge), scratch(n, edge);
      Guarded<float> lanes(lane_floats(n), edge);
      fill(rng, x);
      fill(rng, reals);
      fill(rng, weight);
      fill(rng, bias);
      if (n % 3 == 0) weight[n / 2] = 40.f;  // has no words
      const DType dtype = rng() % 2 ? DType::qs8 : DType::qu8;
      const RowNorm norm{n, rng() % 2 == 0, 1e-5, weight.data(), bias.data()};
      const RealRows bytes{x.data(), dtype, n, 0.1f, 3}, floats{reals.data(), DType::f32, n};
      Finish finish;
      finish.dtype = dtype;
      finish.inverse_scale = 10.f;
      const auto equal = [&] {
        INFO(name_of(isa) << " n " << n);
        REQUIRE(same(y, z));
      };
      const PostOp relu{PostOp::Kind::relu, 0.f, 0.f};
      for (int post_ops = 0; post_ops < 2; ++post_ops) {
        finish.post_ops = &relu;
        finish.num_post_ops = post_ops;
        finish.streams = rng() % 2 == 0;
        k.byte_rows(norm, bytes, 2, lanes.data(), {finish, y.data()});
        finish.streams = false;
        plain.byte_rows(norm, bytes, 2, nullptr, {finish, z.data()});  // in the order of memory
        equal();
      }
      finish.num_post_ops = 0;
      k.real_rows(norm, floats, &bytes, 2, scratch.data(), {finish, y.data()});
      plain.real_rows(norm, floats, &bytes, 2, scratch.data(), {finish, z.data()});
      equal();
      const Operand row{x.data(), dtype, 1.f, 3};
      for (float inverse_scale : {20.f, 1.f}) {
        finish.inverse_scale = inverse_scale;
        finish.streams = rng() % 2 == 0;
        k.affine(finish, row, weight.data(), bias.data(), 2, n, lanes.data(), y.data());
        finish.streams = false;
        plain.affine(finish, row, weight.data(), bias.data(), 2, n, lanes.data(), z.data());
        equal();
      }
      k.affine_all(finish, row, weight[0], bias[0], n, y.data() + n);
      plain.affine_all(finish, row, weight[0], bias[0], n, z.data() + n);
      equal();
    }
  }
}

TEST_CASE("norm: a row does not depend on the others", "[norm]") {
  const NormKernels& plain = norm_kernels(Isa::portable);
  for (Isa isa : kernel_levels()) {
    const NormKernels& k = norm_kernels(isa);
    std::mt19937 rng(4);
    for (int64_t n : {1, 63, 64, 130, 768, 40000}) {
      for (int64_t rows : {7, 16, 19, 37}) {
        if (n > 1000 && rows != 19) continue;
        const int64_t stride = n + rows % 2;
        Guarded<uint8_t> x(rows * stride, Edge::kEnd), y(rows * n, Edge::kEnd), z(n, Edge::kEnd);
        Guarded<float> weight(n, Edge::kEnd), lanes(lane_floats(n), Edge::kEnd);
        fill(rng, x);
        for (int64_t i = 0; i < rows * stride; ++i)
          if (i / stride % 5 == 3) x[i] >>= 6;  // too little spread for words
        fill(rng, weight);
        const RowNorm norm{n, true, 1e-5, weight.data(), nullptr};
        const DType dtype = rng() % 2 ? DType::qs8 : DType::qu8;
        Finish finish;
        finish.dtype = dtype;
        // Words, floats, and what does not fit lanes.
        for (float inverse_scale : {1.f, 20.f, 1e9f}) {
          finish.inverse_scale = inverse_scale;
          k.byte_rows(norm, {x.data(), dtype, stride, 0.1f, 3}, rows, lanes.data(), {finish, y.data()});
          for (int64_t r = 0; r < rows; ++r) {
            INFO(name_of(isa) << " n " << n << " row " << r << " of " << rows);
            plain.byte_rows(norm, {x.data() + r * stride, dtype, stride, 0.1f, 3}, 1, nullptr,
                            {finish, z.data()});
            REQUIRE(std::equal(z.begin(), z.end(), y.begin() + r * n));
            k.byte_rows(norm, {x.data() + r * stride, dtype, stride, 0.1f, 3}, 1, nullptr,
                        {finish, z.data()});
            REQUIRE(std::equal(z.begin(), z.end(), y.begin() + r * n));
          }
        }
      }
    }
  }
}
