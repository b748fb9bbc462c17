#include "kernels/quantize.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace {

int quantize_model(float x, float inverse_scale, int32_t zero_point, const QuantRange& range) {
  const float v = std::nearbyintf(x * inverse_scale);
  if (std::isnan(v)) return range.lo;
  const double q = static_cast<double>(v) + zero_point;
  return static_cast<int>(q < range.lo ? range.lo : q > range.hi ? range.hi : q);
}

float dequantize_model(int q, float scale, int32_t zero_point) {
  return static_cast<float>(q - zero_point) * scale;
}

int byte_value(uint8_t b, DType d) { return d == DType::qs8 ? static_cast<int8_t>(b) : b; }

float any_float(std::mt19937& rng) {
  return rng() % 10 == 0 ? random_bits(rng) : random_float(rng, -4.f, 4.f);
}

constexpr QuantRange kRanges[] = {{DType::qu8, 0, 255},   {DType::qs8, -128, 127}, {DType::qs8, -127, 127},
                                  {DType::qu8, 0, 127},   {DType::qs8, -63, 63},   {DType::qu8, 16, 200},
                                  {DType::qs8, -128, -1}, {DType::qu8, 77, 77}};

int random_zero_point(std::mt19937& rng, DType d) { return random_int(rng, quant_min(d), quant_max(d)); }

}  // namespace

TEST_CASE("quantize: runs equal the scalar rule", "[quantize]") {
  for (Isa isa : kernel_levels()) {
    const QuantizeKernels& kernels = quantize_kernels(isa);
    std::mt19937 rng(1);
    for (int64_t n = 0; n <= 300; ++n) {
      const Edge edge = n % 2 ? Edge::kStart : Edge::kEnd;
      const QuantRange range = kRanges[n % std::size(kRanges)];
      const float inverse = std::ldexp(random_float(rng, 1.f, 2.f), random_int(rng, -3, 8));
      const int32_t zp = random_zero_point(rng, range.dtype);
      Guarded<float> src(n, edge);
      Guarded<uint16_t> src_bf16(n, edge);
      Guarded<uint8_t> dst(n, edge), dst_bf16(n, edge);
      for (float& x : src) x = any_float(rng);
      for (uint16_t& x : src_bf16) x = to_bf16(any_float(rng));
      kernels.quantize_f32(src.data(), n, inverse, zp, range, dst.data());
      kernels.quantize_bf16(src_bf16.data(), n, inverse, zp, range, dst_bf16.data());
      for (int64_t i = 0; i < n; ++i) {
        INFO(name_of(isa) << " n " << n << " i " << i << " x " << src[i]);
        const int expected = quantize_model(src[i], inverse, zp, range);
        if (byte_value(dst[i], range.dtype) != expected) REQUIRE(byte_value(dst[i], range.dtype) == expected);
        const int expected_bf16 = quantize_model(from_bf16(src_bf16[i]), inverse, zp, range);
        if (byte_value(dst_bf16[i], range.dtype) != expected_bf16)
          REQUIRE(byte_value(dst_bf16[i], range.dtype) == expected_bf16);
      }
    }
  }
}

TEST_CASE("quantize: NaN gives the lower bound, infinities the bounds", "[quantize]") {
  const float special[] = {NAN, -NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 2.5f, 3.5f, -2.5f, 0.f};
  for (Isa isa : kernel_levels()) {
    for (const QuantRange& range : {QuantRange{DType::qs8, -127, 127}, QuantRange{DType::qu8, 3, 250}}) {
      uint8_t run[10], channels[10];
      const int32_t zero_point[10] = {100, 100, 100, 100, 100, 100, 100, 100, 100, 100};
      const float inverse[10] = {1.f, 1.f, 1.f, 1.f, 1.f, 1.f, 1.f, 1.f, 1.f, 1.f};
      quantize_kernels(isa).quantize_f32(special, 10, 1.f, 100, range, run);
      quantize_kernels(isa).quantize_channels_f32(special, 1, 10, inverse, zero_point, range, channels);
      const int expected[10] = {range.lo, range.lo, range.hi, range.lo, range.hi,
                                range.lo, 102,      104,      98,       100};
      for (int i = 0; i < 10; ++i) {
        INFO(name_of(isa) << " " << special[i]);
        CHECK(byte_value(run[i], range.dtype) == expected[i]);
        CHECK(byte_value(channels[i], range.dtype) == expected[i]);
      }
    }
  }
}

TEST_CASE("quantize: channels equal the scalar rule", "[quantize]") {
  for (Isa isa : kernel_levels()) {
    const QuantizeKernels& kernels = quantize_kernels(isa);
    std::mt19937 rng(2);
    for (int64_t channels = 1; channels <= 140; ++channels) {
      const Edge edge = channels % 2 ? Edge::kStart : Edge::kEnd;
      const int64_t rows = random_int(rng, 0, 4), n = rows * channels;
      const QuantRange range = kRanges[channels % std::size(kRanges)];
      Guarded<float> src(n, edge), inverse(channels, edge);
      Guarded<uint16_t> src_bf16(n, edge);
      Guarded<int32_t> zero_point(channels, edge);
      Guarded<uint8_t> dst(n, edge), dst_bf16(n, edge);
      for (float& x : src) x = any_float(rng);
      for (uint16_t& x : src_bf16) x = to_bf16(any_float(rng));
      for (float& s : inverse) s = std::ldexp(random_float(rng, 1.f, 2.f), random_int(rng, -3, 8));
      for (int32_t& z : zero_point) z = random_zero_point(rng, range.dtype);
      // Without zero points 0 must be in the type, not in the range.
      const int32_t* zp = channels % 3 ? zero_point.data() : nullptr;
      kernels.quantize_channels_f32(src.data(), rows, channels, inverse.data(), zp, range, dst.data());
      kernels.quantize_channels_bf16(src_bf16.data(), rows, channels, inverse.data(), zp, range,
                                     dst_bf16.data());
      for (int64_t i = 0; i < n; ++i) {
        const int64_t c = i % channels;
        const int32_t z = zp != nullptr ? zp[c] : 0;
        const int expected = quantize_model(src[i], inverse[c], z, range);
        const int expected_bf16 = quantize_model(from_bf16(src_bf16[i]), inverse[c], z, range);
        INFO(name_of(isa) << " channels " << channels << " i " << i);
        if (byte_value(dst[i], range.dtype) != expected) REQUIRE(byte_value(dst[i], range.dtype) == expected);
        if (byte_value(dst_bf16[i], range.dtype) != expected_bf16)
          REQUIRE(byte_value(dst_bf16[i], range.dtype) == expected_bf16);
      }
    }
  }
}

TEST_CASE("quantize: dequantize equals the scalar rule", "[quantize]") {
  for (Isa isa : kernel_levels()) {
    const QuantizeKernels& kernels = quantize_kernels(isa);
    std::mt19937 rng(3);
    for (int64_t channels = 1; channels <= 140; ++channels) {
      const Edge edge = channels % 2 ? Edge::kStart : Edge::kEnd;
      const int64_t rows = random_int(rng, 1, 4), n = rows * channels;
      const DType dtype = channels % 4 < 2 ? DType::qs8 : DType::qu8;
      Guarded<uint8_t> src(n, edge);
      Guarded<float> scale(channels, edge), dst(n, edge), run(n, edge);
      Guarded<int32_t> zero_point(channels, edge);
      Guarded<uint16_t> dst_bf16(n, edge), run_bf16(n, edge);
      for (uint8_t& b : src) b = static_cast<uint8_t>(rng());
      for (float& s : scale) s = std::ldexp(random_float(rng, 1.f, 2.f), random_int(rng, -140, 120));
      for (int32_t& z : zero_point)
        z = rng() % 8 ? random_zero_point(rng, dtype) : random_int(rng, -(1 << 30), 1 << 30);
      const int32_t* zp = channels % 3 ? zero_point.data() : nullptr;
      kernels.dequantize_channels_f32(src.data(), dtype, rows, channels, scale.data(), zp, dst.data());
      kernels.dequantize_channels_bf16(src.data(), dtype, rows, channels, scale.data(), zp, dst_bf16.data());
      kernels.dequantize_f32(src.data(), dtype, n, scale[0], zero_point[0], run.data());
      kernels.dequantize_bf16(src.data(), dtype, n, scale[0], zero_point[0], run_bf16.data());
      for (int64_t i = 0; i < n; ++i) {
        const int64_t c = i % channels;
        const int q = byte_value(src[i], dtype);
        const float by_channel = dequantize_model(q, scale[c], zp != nullptr ? zp[c] : 0);
        const float by_run = dequantize_model(q, scale[0], zero_point[0]);
        INFO(name_of(isa) << " channels " << channels << " i " << i << " q " << q);
        REQUIRE(same(dst[i], by_channel));
        REQUIRE(dst_bf16[i] == to_bf16(by_channel));
        REQUIRE(same(run[i], by_run));
        REQUIRE(run_bf16[i] == to_bf16(by_run));
      }
    }
  }
}

TEST_CASE("quantize: min_max excludes 0, keeps infinities, reports NaN", "[quantize]") {
  for (Isa isa : kernel_levels()) {
    const QuantizeKernels& kernels = quantize_kernels(isa);
    std::mt19937 rng(4);
    for (int64_t n = 1; n <= 300; ++n) {
      const Edge edge = n % 2 ? Edge::kStart : Edge::kEnd;
      Guarded<float> src(n, edge);
      Guarded<uint16_t> src_bf16(n, edge);
      const float shift = random_float(rng, -9.f, 9.f);
      float lo = INFINITY, hi = -INFINITY, lo_bf16 = INFINITY, hi_bf16 = -INFINITY;
      for (int64_t i = 0; i < n; ++i) {
        src[i] = random_float(rng, -4.f, 4.f) + shift;
        if (rng() % 500 == 0) src[i] = rng() % 2 ? INFINITY : -INFINITY;
        src_bf16[i] = to_bf16(src[i]);
        lo = std::min(lo, src[i]), hi = std::max(hi, src[i]);
        lo_bf16 = std::min(lo_bf16, from_bf16(src_bf16[i]));
        hi_bf16 = std::max(hi_bf16, from_bf16(src_bf16[i]));
      }
      float mn = 0.f, mx = 0.f;
      INFO(name_of(isa) << " n " << n);
      kernels.min_max_f32(src.data(), n, &mn, &mx);
      REQUIRE((mn == lo && mx == hi));
      kernels.min_max_bf16(src_bf16.data(), n, &mn, &mx);
      REQUIRE((mn == lo_bf16 && mx == hi_bf16));
      const int64_t at = random_int(rng, 0, static_cast<int>(n) - 1);
      src[at] = NAN;
      src_bf16[at] = to_bf16(NAN);
      kernels.min_max_f32(src.data(), n, &mn, &mx);
      REQUIRE((std::isnan(mn) && std::isnan(mx)));
      kernels.min_max_bf16(src_bf16.data(), n, &mn, &mx);
      REQUIRE((std::isnan(mn) && std::isnan(mx)));
    }
    const float zeros[] = {-0.f, 0.f, -0.f, 0.f, -0.f, -0.f, 0.f};
    float mn = 1.f, mx = 1.f;
    kernels.min_max_f32(zeros, 7, &mn, &mx);
    CHECK((same(mn, 0.f) && same(mx, 0.f)));
  }
}

TEST_CASE("quantize: the caller's rounding mode and denormal flags change nothing", "[quantize]") {
  std::mt19937 rng(5);
  std::vector<float> src(333), inverse(333, 0x1p126f);
  for (float& x : src) x = rng() % 2 ? random_float(rng, -4.f, 4.f) : random_float(rng, -4e-38f, 4e-38f);
  const QuantRange range{DType::qs8, -128, 127};
  for (Isa isa : kernel_levels()) {
    const QuantizeKernels& kernels = quantize_kernels(isa);
    std::vector<uint8_t> run(333), channels(333);
    std::vector<float> back(333);
    {
      const HostileFloatEnv env;
      kernels.quantize_f32(src.data(), 333, 31.7f, 5, range, run.data());
      kernels.quantize_channels_f32(src.data(), 3, 111, inverse.data(), nullptr, range, channels.data());
      kernels.dequantize_f32(run.data(), DType::qs8, 333, 1.1e-40f, 5, back.data());
      CHECK(env.intact());
    }
    for (int i = 0; i < 333; ++i) {
      INFO(name_of(isa) << " " << src[i]);
      REQUIRE(byte_value(run[i], DType::qs8) == quantize_model(src[i], 31.7f, 5, range));
      REQUIRE(byte_value(channels[i], DType::qs8) == quantize_model(src[i], 0x1p126f, 0, range));
      REQUIRE(same(back[i], dequantize_model(byte_value(run[i], DType::qs8), 1.1e-40f, 5)));
    }
  }
}
