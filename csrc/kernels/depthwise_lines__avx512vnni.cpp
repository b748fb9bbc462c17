// See depthwise_lines.h.

// GCC 12 takes the undefined pass-through operands of avx512fintrin.h for variables
// that we forgot to set (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/byte_rule_avx512-inl.h"
#include "kernels/depthwise_lines.h"
#include "kernels/vec_float_env.h"

namespace tae::kernels {
namespace {

// 4 bytes a channel, of 16 channels each.
struct Quads {
  __m512i v0, v1, v2, v3;
};

// The first `left` channels of 64 from c on.
template <int kCount>
TAE_INLINE Quads side_by_side(const uint8_t* const (&source)[kLineTaps], int64_t c, int64_t left,
                              __m512i flip) {
  const __mmask64 mask = first_bytes(left);
  __m512i t[kLineTaps];
#pragma GCC unroll 4
  for (int i = 0; i < kLineTaps; ++i)
    t[i] =
        i < kCount
            ? transpose(_mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, source[i < kCount ? i : 0] + c), flip))
            : _mm512_setzero_si512();
  const __m512i low01 = _mm512_unpacklo_epi8(t[0], t[1]), high01 = _mm512_unpackhi_epi8(t[0], t[1]);
  const __m512i low23 = _mm512_unpacklo_epi8(t[2], t[3]), high23 = _mm512_unpackhi_epi8(t[2], t[3]);
  return {_mm512_unpacklo_epi16(low01, low23), _mm512_unpackhi_epi16(low01, low23),
          _mm512_unpacklo_epi16(high01, high23), _mm512_unpackhi_epi16(high01, high23)};
}

template <int kCount>
TAE_INLINE void expand_block(const uint8_t* const (&source)[kLineTaps], int64_t c, int64_t left, __m512i flip,
                             uint8_t* dst) {
  const Quads q = side_by_side<kCount>(source, c, left, flip);
  _mm512_storeu_si512(dst, q.v0);
  if (left > 16) _mm512_storeu_si512(dst + 64, q.v1);
  if (left <= 32) return;
  _mm512_storeu_si512(dst + 128, q.v2);
  _mm512_storeu_si512(dst + 192, q.v3);
}

// Pixels in turn to two places.
template <int kCount>
void expand_in_turn(const TapLines& p) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(p.flip));
  const uint8_t* const source[kLineTaps] = {p.source[0], p.source[1], p.source[2], p.source[3]};
  const int64_t vectors = p.channels / 16, values = p.pixels * p.channels;
  uint8_t *now = p.expanded, *then = p.alternate;
  int64_t left = vectors;  // of the pixel
  const auto put = [&](__m512i v) __attribute__((always_inline)) {
    _mm512_storeu_si512(now, v);
    now += 64;
    if (--left > 0) return;
    std::swap(now, then);
    left = vectors;
  };
  int64_t c = 0;
  for (; c + kLineBlock <= values; c += kLineBlock) {
    const Quads q = side_by_side<kCount>(source, c, kLineBlock, flip);
    put(q.v0);
    put(q.v1);
    put(q.v2);
    put(q.v3);
  }
  if (c == values) return;
  const Quads q = side_by_side<kCount>(source, c, values - c, flip);
  put(q.v0);
  if (values - c > 16) put(q.v1);
  if (values - c > 32) put(q.v2);
}

template <int kCount>
void expand_lines(const TapLines& p) {
  if (p.alternate != nullptr) return expand_in_turn<kCount>(p);
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(p.flip));
  const int64_t channels = p.channels;
  const uint8_t* source[kLineTaps] = {p.source[0], p.source[1], p.source[2], p.source[3]};
  uint8_t* dst = p.expanded;
  for (int64_t pixel = 0; pixel < p.pixels; ++pixel, dst += kLineTaps * p.period) {
    int64_t c = 0;
    for (; c + kLineBlock <= channels; c += kLineBlock)
      expand_block<kCount>(source, c, kLineBlock, flip, dst + kLineTaps * c);
    if (c < channels) expand_block<kCount>(source, c, channels - c, flip, dst + kLineTaps * c);
    for (int i = 0; i < kCount; ++i) source[i] += p.step[i];
  }
}

void expand(const TapLines& p) {
  switch (p.count) {
    case 1:
      return expand_lines<1>(p);
    case 2:
      return expand_lines<2>(p);
    case 3:
      return expand_lines<3>(p);
    default:
      return expand_lines<4>(p);
  }
}

// Blocks that begin at one channel: where the first one is, and how far the next.
struct Blocks {
  int64_t value, value_step;
  int64_t output, output_step;
  int64_t channel;
};

template <int kBlocks>
TAE_INLINE void sum_blocks(const LineProducts& p, const Blocks& at, __m512i (&sum)[kBlocks][4]) {
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const __m512i start = _mm512_loadu_si512(p.start + at.channel + 16 * v);
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) sum[b][v] = start;
  }
  const int8_t* w = p.weight + kLineTaps * at.channel;
  const uint8_t* x[kBlocks];
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b) {
    x[b] = p.expanded + kLineTaps * (at.value + b * at.value_step);
    __asm__("" : "+r"(x[b]));  // a pointer each: GCC would keep the 12 distances to one
  }
  const int64_t* offset = p.offset;
  for (int64_t g = p.groups; g > 0; --g, w += p.weight_stride, ++offset) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const __m512i weight = _mm512_loadu_si512(w + 64 * v);
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b)
        sum[b][v] = _mm512_dpbusd_epi32(sum[b][v], _mm512_loadu_si512(x[b] + *offset + 64 * v), weight);
    }
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b)  // in place: GCC would copy them
      __asm__("" : "+v"(sum[b][0]), "+v"(sum[b][1]), "+v"(sum[b][2]), "+v"(sum[b][3]));
  }
}

template <bool kBytes, int kBlocks>
TAE_INLINE void multiply_blocks(const LineProducts& p, const Blocks& at, int64_t left) {
  __m512i sum[kBlocks][4];
  sum_blocks(p, at, sum);
  if constexpr (!kBytes) {
    int32_t* sums = p.sums + at.value;
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b, sums += at.value_step)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) _mm512_storeu_si512(sums + 16 * v, sum[b][v]);
    return;
  }
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const __m512 scale = _mm512_loadu_ps(p.scale + at.channel + 16 * v);
    const __m512 bias = _mm512_loadu_ps(p.bias + at.channel + 16 * v);
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b)
      sum[b][v] = quotient(real_value(sum[b][v], scale, bias), p.rule.inverse);
  }
  uint8_t* output = p.output + at.output;
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b, output += at.output_step)
    store_bytes(output, bytes_of(sum[b][0], sum[b][1], sum[b][2], sum[b][3], p.rule, transposition()), left);
}

// `left`: values from each block's first on.
template <bool kBytes>
[[gnu::noinline]] void multiply_all(const LineProducts& products, Blocks at, int64_t count, int64_t left) {
  const LineProducts p = products;  // stores cannot alias it
  const auto move = [&](int64_t blocks) {
    at.value += blocks * at.value_step;
    at.output += blocks * at.output_step;
    count -= blocks;
  };
  for (; count >= 4; move(4)) multiply_blocks<kBytes, 4>(p, at, left);
  if (count == 3) multiply_blocks<kBytes, 3>(p, at, left);
  if (count == 2) multiply_blocks<kBytes, 2>(p, at, left);
  if (count == 1) multiply_blocks<kBytes, 1>(p, at, left);
}

template <bool kBytes>
[[gnu::noinline]] void multiply_run(const LineProducts& p) noexcept {
  if (p.period % kLineBlock == 0) {
    for (int64_t c = 0; c < p.channels; c += kLineBlock)
      multiply_all<kBytes>(p, {c, p.period, c, p.output_stride, c}, p.pixels, p.channels - c);
    return;
  }
  const int64_t values = p.pixels * p.period;
  const int64_t step = std::lcm(p.period, kLineBlock);  // from a block to the next of the same first channel
  for (int64_t first = 0; first < std::min(step, values); first += kLineBlock) {
    const int64_t count = (values - first + step - 1) / step;
    const int64_t last = first + (count - 1) * step;
    const bool whole = values - last >= kLineBlock;
    multiply_all<kBytes>(p, {first, step, first, step, first % p.period}, whole ? count : count - 1,
                         kLineBlock);
    if (!whole) multiply_all<kBytes>(p, {last, step, last, step, first % p.period}, 1, values - last);
  }
}

void multiply(const LineProducts& p) {
  const DefaultFloatEnv env;
  if (p.sums == nullptr)
    multiply_run<true>(p);
  else
    multiply_run<false>(p);
}

}  // namespace

extern const LineKernels line_kernels__avx512vnni;
const LineKernels line_kernels__avx512vnni = {expand, multiply};

}  // namespace tae::kernels
