#include "kernels/depthwise.h"

#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <deque>
#include <random>
#include <vector>

#include "test/csrc/kernels/kernel_testing.h"

using namespace tae;
using namespace tae::kernels;
using namespace tae::test;

namespace {

constexpr int64_t kStrip = kDepthwiseChannels;

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

TEST_CASE("depthwise: pixels equal the scalar sums", "[depthwise]") {
  for (Isa isa : kernel_levels()) {
    const DepthwiseKernels& kernels = depthwise_kernels(isa);
    std::mt19937 rng(1);
    for (int64_t channels = 1; channels <= 200; channels += channels < 70 ? 1 : 13) {
      const int64_t taps = random_int(rng, 1, 26);
      const uint8_t flip = channels % 2 ? 0x80 : 0;
      const int64_t padded_taps = round_up(taps, kernels.tap_multiple);
      std::vector<int8_t> weight(static_cast<size_t>(channels * taps));
      for (int8_t& w : weight) w = static_cast<int8_t>(random_int(rng, -128, 127));
      std::vector<int8_t> packed(static_cast<size_t>(round_up(channels, kStrip) * padded_taps));
      kernels.pack(weight.data(), channels, taps, packed.data());

      // Each tap ends at (or begins on) a page that must not be touched.
      std::deque<Guarded<uint8_t>> inputs;
      std::vector<const uint8_t*> pointers;
      for (int64_t t = 0; t < taps; ++t) {
        inputs.emplace_back(channels, t % 2 ? Edge::kStart : Edge::kEnd);
        for (uint8_t& x : inputs.back()) x = static_cast<uint8_t>(random_int(rng, 0, 255));
        pointers.push_back(inputs.back().data());
      }
      while (static_cast<int64_t>(pointers.size()) < padded_taps) pointers.push_back(pointers[0]);
      std::vector<int32_t> acc(static_cast<size_t>(round_up(channels, kStrip)), -1);
      kernels.run({pointers.data(), padded_taps, channels, flip, packed.data(), acc.data()});
      for (int64_t c = 0; c < channels; ++c) {
        int32_t expected = 0;
        for (int64_t t = 0; t < taps; ++t)
          expected += (inputs[static_cast<size_t>(t)][c] ^ flip) * weight[static_cast<size_t>(c * taps + t)];
        INFO(name_of(isa) << " channels " << channels << " taps " << taps << " channel " << c);
        REQUIRE(acc[static_cast<size_t>(c)] == expected);
      }
    }
  }
}
