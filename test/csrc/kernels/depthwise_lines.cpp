#include "kernels/depthwise_lines.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdint>
#include <deque>
#include <random>
#include <vector>

#include "kernels/requantize.h"
#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace {

const LineKernels* usable_kernels() {
  return usable(Isa::avx512_vnni) ? line_kernels(Isa::avx512_vnni) : nullptr;
}

}  // namespace

TEST_CASE("depthwise lines: bytes of taps side by side", "[depthwise]") {
  CHECK(line_kernels(Isa::avx512) == nullptr);
  const LineKernels* const kernels = usable_kernels();
  if (kernels == nullptr) SKIP("no AVX512-VNNI");
  std::mt19937 rng(2);
  for (int64_t channels = 1; channels <= 200; channels += channels < 70 ? 1 : 13) {
    TapLines t;
    t.count = static_cast<int>(channels % 4 + 1);
    t.pixels = random_int(rng, 1, 5);
    t.channels = channels;
    t.period = channels + channels % 3;
    t.flip = channels % 2 ? 0x80 : 0;
    // Each line ends at (or begins on) a page that must not be touched.
    std::deque<Guarded<uint8_t>> lines;
    for (int i = 0; i < t.count; ++i) {
      const bool moves = i != 1;  // the second is padding: one pixel for all
      lines.emplace_back(moves ? channels * t.pixels : channels, i % 2 ? Edge::kStart : Edge::kEnd);
      for (uint8_t& x : lines.back()) x = static_cast<uint8_t>(random_int(rng, 0, 255));
      t.source[i] = lines.back().data();
      t.step[i] = moves ? channels : 0;
    }
    std::vector<uint8_t> expanded(static_cast<size_t>((t.pixels * t.period + kLineBlock) * kLineTaps), 0xee);
    t.expanded = expanded.data();
    kernels->expand(t);
    for (int64_t p = 0; p < t.pixels; ++p)
      for (int64_t c = 0; c < channels; ++c)
        for (int i = 0; i < t.count; ++i) {
          INFO("channels " << channels << " pixel " << p << " channel " << c << " tap " << i);
          REQUIRE(expanded[static_cast<size_t>((p * t.period + c) * kLineTaps + i)] ==
                  (t.source[i][p * t.step[i] + c] ^ t.flip));
        }
  }
}

TEST_CASE("depthwise lines: pixels in turn to two places", "[depthwise]") {
  const LineKernels* const kernels = usable_kernels();
  if (kernels == nullptr) SKIP("no AVX512-VNNI");
  std::mt19937 rng(5);
  for (int64_t channels : {16, 32, 48, 64, 80, 96, 320})
    for (int64_t pixels : {1, 2, 3, 4, 7, 20})
      for (int count : {1, 2, 3, 4}) {
        INFO(channels << " channels, " << pixels << " pixels, " << count << " lines");
        TapLines p;
        std::deque<Guarded<uint8_t>> lines;
        for (int i = 0; i < count; ++i) {
          lines.emplace_back(pixels * channels);
          for (uint8_t& x : lines.back()) x = static_cast<uint8_t>(random_int(rng, 0, 255));
        }
        for (int i = 0; i < count; ++i) p.source[i] = lines[static_cast<size_t>(i)].data();
        Guarded<uint8_t> even((pixels + 1) / 2 * channels * kLineTaps);
        Guarded<uint8_t> odd(pixels / 2 * channels * kLineTaps);
        p.count = count;
        p.pixels = pixels;
        p.channels = p.period = channels;
        p.flip = 0x80;
        p.expanded = even.data();
        p.alternate = odd.data();
        kernels->expand(p);
        for (int64_t i = 0; i < pixels * channels; ++i)
          for (int t = 0; t < kLineTaps; ++t) {
            const int64_t pixel = i / channels, at = pixel / 2 * channels + i % channels;
            const uint8_t got = (pixel % 2 == 0 ? even : odd).data()[at * kLineTaps + t];
            REQUIRE(got == (t < count ? (p.source[t][i] ^ 0x80) : 0));
          }
      }
}

TEST_CASE("depthwise lines: products equal the scalar rule", "[depthwise]") {
  const LineKernels* const kernels = usable_kernels();
  if (kernels == nullptr) SKIP("no AVX512-VNNI");
  std::mt19937 rng(3);
  for (int64_t period : {1, 2, 7, 16, 24, 32, 63, 64, 65, 96, 128, 144, 192, 256}) {
    const bool whole = period % kLineBlock != 0;
    for (int64_t pixels : {1, 2, 3, 4, 5, 8, 15}) {
      LineProducts p;
      p.period = period;
      p.channels = whole ? period : period - random_int(rng, 0, 70) % period;
      p.pixels = pixels;
      p.groups = random_int(rng, 1, 5);
      p.output_stride = whole ? period : period + random_int(rng, 0, 40);
      const int64_t stored = period + kLineBlock;
      p.weight_stride = stored * kLineTaps;
      std::vector<int8_t> weight(static_cast<size_t>(p.groups * p.weight_stride));
      std::vector<int32_t> start(static_cast<size_t>(stored));
      std::vector<float> scale(start.size()), bias(start.size());
      for (int64_t i = 0; i < stored; ++i) {
        const size_t at = static_cast<size_t>(i), first = static_cast<size_t>(i % period);
        start[at] = i < period ? random_int(rng, -100000, 100000) : start[first];
        scale[at] = i < period ? random_float(rng, -0.01f, 0.01f) : scale[first];
        bias[at] = i < period ? random_float(rng, -3.f, 3.f) : bias[first];
        for (int64_t g = 0; g < p.groups; ++g)
          for (int t = 0; t < kLineTaps; ++t)
            weight[static_cast<size_t>((g * stored + i) * kLineTaps + t)] =
                i < period ? static_cast<int8_t>(random_int(rng, -128, 127))
                           : weight[static_cast<size_t>((g * stored + i % period) * kLineTaps + t)];
      }
      std::vector<int64_t> offset;
      for (int64_t g = 0; g < p.groups; ++g) offset.push_back(g * period * kLineTaps);
      std::vector<uint8_t> expanded(
          static_cast<size_t>(((pixels + p.groups) * period + kLineBlock) * kLineTaps));
      for (uint8_t& x : expanded) x = static_cast<uint8_t>(random_int(rng, 0, 255));
      Guarded<uint8_t> output((pixels - 1) * p.output_stride + p.channels);
      std::fill(output.begin(), output.end(), 0xaa);
      const EpilogueParams e{.output_dtype = DType::qs8, .output_scale = 0.0235f, .output_zero_point = -5};
      REQUIRE(make_byte_rule(e, &p.rule));
      p.expanded = expanded.data();
      p.offset = offset.data();
      p.weight = weight.data();
      p.start = start.data();
      p.scale = scale.data();
      p.bias = bias.data();
      p.output = output.data();
      {
        const HostileFloatEnv env;
        kernels->multiply(p);
        CHECK(env.intact());
      }
      std::vector<int32_t> sums(static_cast<size_t>(pixels * period + kLineBlock));
      LineProducts raw = p;
      raw.sums = sums.data();
      raw.output = nullptr;
      kernels->multiply(raw);
      for (int64_t x = 0; x < pixels; ++x)
        for (int64_t c = 0; c < p.channels; ++c) {
          int32_t sum = start[static_cast<size_t>(c)];
          for (int64_t g = 0; g < p.groups; ++g)
            for (int t = 0; t < kLineTaps; ++t)
              sum += expanded[static_cast<size_t>(offset[static_cast<size_t>(g)] +
                                                  (x * period + c) * kLineTaps + t)] *
                     weight[static_cast<size_t>((g * stored + c) * kLineTaps + t)];
          const float r =
              static_cast<float>(sum) * scale[static_cast<size_t>(c)] + bias[static_cast<size_t>(c)];
          const float q = std::clamp(std::nearbyint(r / e.output_scale) - 5.f, -128.f, 127.f);
          INFO("period " << period << " pixels " << pixels << " pixel " << x << " channel " << c);
          REQUIRE(sums[static_cast<size_t>(x * period + c)] == sum);
          REQUIRE(static_cast<int8_t>(output[x * p.output_stride + c]) == static_cast<int8_t>(q));
        }
      // Between the channels of a slice nothing is written.
      for (int64_t i = 0; i < output.size(); ++i)
        if (i % p.output_stride >= p.channels) REQUIRE(output[i] == 0xaa);
    }
  }
}
