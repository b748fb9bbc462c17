#include "kernels/elementwise.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdint>
#include <deque>
#include <random>
#include <vector>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace {

int value_of(uint8_t byte, DType d) { return d == DType::qs8 ? static_cast<int8_t>(byte) : byte; }

int stored(float r, const Finish& f) {
  const float v = std::nearbyintf(r * f.inverse_scale);
  const double q = static_cast<double>(v) + f.zero_point;
  return static_cast<int>(std::clamp<double>(q, quant_min(f.dtype), quant_max(f.dtype)));
}

float real(uint8_t byte, const Operand& o) {
  return static_cast<float>(value_of(byte, o.dtype) - o.zero_point) * o.scale;
}

Operand random_operand(std::mt19937& rng, const void* data) {
  Operand o;
  o.data = data;
  o.dtype = rng() % 2 ? DType::qs8 : DType::qu8;
  o.scale = random_float(rng, 0.001f, 0.2f);
  o.zero_point = random_int(rng, quant_min(o.dtype), quant_max(o.dtype));
  return o;
}

Finish random_finish(std::mt19937& rng) {
  Finish f;
  f.dtype = rng() % 2 ? DType::qs8 : DType::qu8;
  f.inverse_scale = random_float(rng, 1.f, 60.f);
  f.zero_point = random_int(rng, quant_min(f.dtype), quant_max(f.dtype));
  f.streams = rng() % 2 == 0;
  return f;
}

void fill(std::mt19937& rng, Guarded<uint8_t>& bytes) {
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random_int(rng, 0, 255));
}

}  // namespace

TEST_CASE("elementwise: results equal the scalar rule", "[elementwise]") {
  for (Isa isa : kernel_levels()) {
    const ElementwiseKernels& kernels = elementwise_kernels(isa);
    std::mt19937 rng(1);
    const PostOp relu{PostOp::Kind::relu, 0.f, 0.f};
    for (int64_t n = 0; n <= 300; ++n) {
      const Edge edge = n % 2 ? Edge::kStart : Edge::kEnd;
      Guarded<uint8_t> x(n, edge), y(n, edge), one(n, edge), sum(n, edge), product(n, edge);
      Guarded<float> floats(n, edge);
      fill(rng, x);
      fill(rng, y);
      const Operand a = random_operand(rng, x.data()), b = random_operand(rng, y.data());
      Finish f = random_finish(rng);
      kernels.requantize(f, a, n, one.data());
      kernels.add(f, a, b, n, sum.data());
      f.post_ops = &relu;
      f.num_post_ops = 1;
      kernels.multiply(f, a, b, n, product.data());
      Finish plain;
      plain.dtype = DType::f32;
      kernels.add(plain, a, b, n, floats.data());
      for (int64_t i = 0; i < n; ++i) {
        INFO(name_of(isa) << " n " << n << " i " << i);
        const float p = real(x[i], a), q = real(y[i], b);
        REQUIRE(value_of(one[i], f.dtype) == stored(p, f));
        REQUIRE(value_of(sum[i], f.dtype) == stored(p + q, f));
        REQUIRE(value_of(product[i], f.dtype) == stored(std::max(p * q, 0.f), f));
        REQUIRE(floats[i] == p + q);
      }
    }
  }
}

TEST_CASE("elementwise: rows give their largest values and means", "[elementwise]") {
  for (Isa isa : kernel_levels()) {
    const ElementwiseKernels& kernels = elementwise_kernels(isa);
    std::mt19937 rng(2);
    for (int64_t channels = 1; channels <= 150; ++channels) {
      const int64_t count = channels % 50 == 0 ? 260 : random_int(rng, 1, 12);
      std::deque<Guarded<uint8_t>> rows;
      std::vector<const void*> pointers;
      for (int64_t r = 0; r < count; ++r) {
        rows.emplace_back(channels, r % 2 ? Edge::kStart : Edge::kEnd);
        fill(rng, rows.back());
        pointers.push_back(rows.back().data());
      }
      const Operand row = random_operand(rng, nullptr);
      const Finish f = random_finish(rng);
      const float divisor = static_cast<float>(random_int(rng, 1, 20));
      Guarded<uint8_t> most(channels, Edge::kEnd), means(2 * channels, Edge::kEnd);
      kernels.max_rows(pointers.data(), count, channels, row.dtype, most.data());
      for (int64_t r = 0; r < count; ++r) pointers.push_back(pointers[count - 1 - r]);
      kernels.average_rows(f, row, pointers.data(), count, 2, channels, divisor, means.data());
      for (int64_t c = 0; c < channels; ++c) {
        int largest = -1000, sum = 0;
        for (Guarded<uint8_t>& r : rows) {
          largest = std::max(largest, value_of(r[c], row.dtype));
          sum += value_of(r[c], row.dtype) - row.zero_point;
        }
        INFO(name_of(isa) << " channels " << channels << " count " << count << " c " << c);
        REQUIRE(value_of(most[c], row.dtype) == largest);
        const int mean = stored(static_cast<float>(sum) * row.scale / divisor, f);
        REQUIRE(value_of(means[c], f.dtype) == mean);
        REQUIRE(value_of(means[channels + c], f.dtype) == mean);
      }
    }
  }
}
