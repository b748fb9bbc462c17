#include "kernels/rows.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace {

uint8_t quantize_model(float x, float inverse_scale, int32_t zero_point, int32_t lo, int32_t hi) {
  const float v = std::nearbyintf(x * inverse_scale);
  if (std::isnan(v)) return static_cast<uint8_t>(lo);
  const double q = static_cast<double>(v) + zero_point;
  return static_cast<uint8_t>(q < lo ? lo : q > hi ? hi : q);
}

// Mostly ordinary values, some of any bit pattern.
float any_float(std::mt19937& rng, int specials) {
  return static_cast<int>(rng() % 100) < specials ? random_bits(rng) : random_float(rng, -4.f, 4.f);
}

struct Quantization {
  float inverse_scale;
  int32_t zero_point, lo, hi;
};

Quantization random_quantization(std::mt19937& rng) {
  constexpr int32_t kRanges[][2] = {{0, 255}, {0, 127}, {1, 255}, {65, 191}};
  const int32_t* range = kRanges[rng() % 4];
  return {std::ldexp(random_float(rng, 1.f, 2.f), random_int(rng, -3, 8)),
          random_int(rng, range[0], range[1]), range[0], range[1]};
}

}  // namespace

TEST_CASE("rows: quantize equals the scalar rule, sums and pads", "[rows]") {
  for (Isa isa : kernel_levels()) {
    const RowKernels& kernels = row_kernels(isa);
    std::mt19937 rng(1);
    for (int64_t k = 1; k <= 300; ++k) {
      const Edge edge = k % 2 ? Edge::kStart : Edge::kEnd;
      const int64_t stride = k + (k % 3 == 0 ? 0 : random_int(rng, 0, 200));
      const Quantization q = random_quantization(rng);
      Guarded<float> src(k, edge);
      Guarded<uint16_t> src_bf16(k, edge);
      Guarded<uint8_t> dst(stride, edge);
      for (int64_t i = 0; i < k; ++i) {
        src[i] = any_float(rng, 10);
        src_bf16[i] = to_bf16(any_float(rng, 10));
      }
      for (bool bf16 : {false, true}) {
        for (uint8_t& b : dst) b = 0xcc;
        const int32_t sum = bf16 ? kernels.quantize_bf16(src_bf16.data(), k, q.inverse_scale, q.zero_point,
                                                         q.lo, q.hi, dst.data(), stride)
                                 : kernels.quantize_f32(src.data(), k, q.inverse_scale, q.zero_point, q.lo,
                                                        q.hi, dst.data(), stride);
        int32_t expected_sum = 0;
        for (int64_t i = 0; i < stride; ++i) {
          const float x = i >= k ? 0.f : bf16 ? from_bf16(src_bf16[i]) : src[i];
          const uint8_t expected = i < k ? quantize_model(x, q.inverse_scale, q.zero_point, q.lo, q.hi) : 0;
          INFO(name_of(isa) << " k " << k << " stride " << stride << " i " << i << " x " << x);
          if (dst[i] != expected) REQUIRE(int(dst[i]) == int(expected));
          expected_sum += expected;
        }
        REQUIRE(sum == expected_sum);
      }
    }
  }
}

TEST_CASE("rows: quantize_full equals quantize over 0..255 for values that gave the scale", "[rows]") {
  for (Isa isa : kernel_levels()) {
    const RowKernels& kernels = row_kernels(isa);
    std::mt19937 rng(4);
    for (int64_t k = 1; k <= 300; ++k) {
      const Edge edge = k % 2 ? Edge::kStart : Edge::kEnd;
      const int64_t stride = k + (k % 3 == 0 ? 0 : random_int(rng, 0, 200));
      const int32_t zero_point = random_int(rng, 0, 255);
      Guarded<float> src(k, edge);
      Guarded<uint16_t> src_bf16(k, edge);
      Guarded<uint8_t> dst(stride, edge);
      for (int64_t i = 0; i < k; ++i) {
        src[i] = random_float(rng, -3.f, 3.f);  // halves too: ties
        if (i % 3 == 0) src[i] = static_cast<float>(random_int(rng, -6, 6)) / 128.f;
        src_bf16[i] = to_bf16(src[i]);
      }
      std::vector<uint8_t> expected(static_cast<size_t>(stride));
      for (bool bf16 : {false, true}) {
        for (uint8_t& b : dst) b = 0xcc;
        if (bf16) {
          kernels.quantize_bf16(src_bf16.data(), k, 64.f, zero_point, 0, 255, expected.data(), stride);
          kernels.quantize_full_bf16(src_bf16.data(), k, 64.f, zero_point, dst.data(), stride);
        } else {
          kernels.quantize_f32(src.data(), k, 64.f, zero_point, 0, 255, expected.data(), stride);
          kernels.quantize_full_f32(src.data(), k, 64.f, zero_point, dst.data(), stride);
        }
        for (int64_t i = 0; i < stride; ++i) {
          INFO(name_of(isa) << " k " << k << " stride " << stride << " i " << i << " bf16 " << bf16);
          if (dst[i] != expected[i]) REQUIRE(int(dst[i]) == int(expected[i]));
        }
      }
    }
  }
}

TEST_CASE("rows: quantize rounds ties to even and saturates", "[rows]") {
  const float values[] = {0.5f,    1.5f,     2.5f,     -0.5f,     -1.5f,        1e9f,          3e9f,
                          1e38f,   INFINITY, -3e9f,    -INFINITY, 2147483648.f, -2147483648.f, NAN,
                          32767.f, 40000.f,  -40000.f, 127.5f,    1e-45f};
  const int expected[] = {100, 102, 102, 100, 98, 255, 255, 255, 255, 0, 0, 255, 0, 0, 255, 255, 0, 228, 100};
  for (Isa isa : kernel_levels()) {
    uint8_t got[std::size(values)];
    row_kernels(isa).quantize_f32(values, std::size(values), 1.f, 100, 0, 255, got, std::size(values));
    for (size_t i = 0; i < std::size(values); ++i) {
      INFO(name_of(isa) << " " << values[i]);
      CHECK(int(got[i]) == expected[i]);
    }
  }
}

TEST_CASE("rows: min_max includes 0 and reports what is not finite", "[rows]") {
  for (Isa isa : kernel_levels()) {
    const RowKernels& kernels = row_kernels(isa);
    std::mt19937 rng(2);
    for (int64_t k = 0; k <= 300; ++k) {
      const Edge edge = k % 2 ? Edge::kStart : Edge::kEnd;
      Guarded<float> src(k, edge);
      Guarded<uint16_t> src_bf16(k, edge);
      const float shift = random_float(rng, -6.f, 6.f);
      float lo = 0.f, hi = 0.f, lo_bf16 = 0.f, hi_bf16 = 0.f;
      for (int64_t i = 0; i < k; ++i) {
        src[i] = random_float(rng, -4.f, 4.f) + shift;
        src_bf16[i] = to_bf16(src[i]);
        lo = std::min(lo, src[i]), hi = std::max(hi, src[i]);
        lo_bf16 = std::min(lo_bf16, from_bf16(src_bf16[i]));
        hi_bf16 = std::max(hi_bf16, from_bf16(src_bf16[i]));
      }
      float mn = -1.f, mx = -1.f;
      INFO(name_of(isa) << " k " << k);
      kernels.min_max_f32(src.data(), k, &mn, &mx);
      REQUIRE((mn == lo && mx == hi));
      kernels.min_max_bf16(src_bf16.data(), k, &mn, &mx);
      REQUIRE((mn == lo_bf16 && mx == hi_bf16));
      if (k == 0) continue;
      // One bad value anywhere.
      const float bad[] = {NAN, INFINITY, -INFINITY, -NAN};
      const int64_t at = random_int(rng, 0, static_cast<int>(k) - 1);
      src[at] = bad[k % 4];
      src_bf16[at] = to_bf16(bad[k % 4]);
      kernels.min_max_f32(src.data(), k, &mn, &mx);
      REQUIRE((std::isnan(mn) && std::isnan(mx)));
      kernels.min_max_bf16(src_bf16.data(), k, &mn, &mx);
      REQUIRE((std::isnan(mn) && std::isnan(mx)));
    }
  }
}

TEST_CASE("rows: integer rows are copied or shifted, summed and padded", "[rows]") {
  for (Isa isa : kernel_levels()) {
    const RowKernels& kernels = row_kernels(isa);
    std::mt19937 rng(3);
    for (int64_t k = 1; k <= 300; ++k) {
      const Edge edge = k % 2 ? Edge::kStart : Edge::kEnd;
      const int64_t stride = k + (k % 3 == 0 ? 0 : random_int(rng, 0, 200));
      Guarded<uint8_t> src(k, edge), dst(stride, edge);
      for (uint8_t& b : src) b = static_cast<uint8_t>(rng());
      for (bool is_signed : {false, true}) {
        for (uint8_t& b : dst) b = 0xcc;
        const int32_t sum =
            is_signed ? kernels.shift_s8(reinterpret_cast<const int8_t*>(src.data()), k, dst.data(), stride)
                      : kernels.copy_u8(src.data(), k, dst.data(), stride);
        int32_t expected_sum = 0;
        for (int64_t i = 0; i < stride; ++i) {
          const int value = i >= k ? 0 : is_signed ? static_cast<int8_t>(src[i]) + 128 : src[i];
          if (int(dst[i]) != value) FAIL(name_of(isa) << " k " << k << " i " << i);
          expected_sum += value;
        }
        REQUIRE(sum == expected_sum);
      }
    }
  }
}

TEST_CASE("rows: sums of long rows wrap nowhere below 2^31", "[rows]") {
  constexpr int64_t kLong = 8'000'000;  // * 255 < 2^31
  const std::vector<uint8_t> src(kLong, 255);
  std::vector<uint8_t> dst(kLong);
  for (Isa isa : kernel_levels())
    CHECK(row_kernels(isa).copy_u8(src.data(), kLong, dst.data(), kLong) == kLong * 255);
}

TEST_CASE("rows: the caller's rounding mode and denormal flags change nothing", "[rows]") {
  std::mt19937 rng(4);
  std::vector<float> src(500);
  for (float& x : src) x = any_float(rng, 5);
  src[7] = 1e-40f;
  const Quantization q{0x1p126f, 3, 0, 255};  // takes the denormal to 0.85
  const Quantization usual{31.7f, 128, 0, 255};
  for (Isa isa : kernel_levels()) {
    const RowKernels& kernels = row_kernels(isa);
    for (const Quantization& u : {q, usual}) {
      uint8_t plain[500], hostile[500];
      const int32_t sum =
          kernels.quantize_f32(src.data(), 500, u.inverse_scale, u.zero_point, u.lo, u.hi, plain, 500);
      int32_t hostile_sum = 0;
      float mn = 1.f, mx = 1.f;
      const float tiny = -1e-40f;
      {
        const HostileFloatEnv env;
        hostile_sum =
            kernels.quantize_f32(src.data(), 500, u.inverse_scale, u.zero_point, u.lo, u.hi, hostile, 500);
        kernels.min_max_f32(&tiny, 1, &mn, &mx);
        CHECK(env.intact());
      }
      CHECK(sum == hostile_sum);
      CHECK(std::memcmp(plain, hostile, 500) == 0);
      CHECK(mn == tiny);
      CHECK(int(plain[7]) == quantize_model(src[7], u.inverse_scale, u.zero_point, u.lo, u.hi));
    }
  }
}
