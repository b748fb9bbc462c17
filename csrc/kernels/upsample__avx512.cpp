// A value of the result is the high byte of a 16-bit sum: signed bytes times weights that add up
// to 256. The sums of even and of odd channels are in vectors of their own.
#include <immintrin.h>

#include <algorithm>

#include "kernels/byte_rule_avx512-inl.h"
#include "kernels/upsample.h"

namespace tae::kernels {
namespace {

struct [[gnu::visibility("hidden")]] Words {
  __m512i even, odd;
};

TAE_INLINE Words add(const Words& a, const Words& b) {
  return {_mm512_add_epi16(a.even, b.even), _mm512_add_epi16(a.odd, b.odd)};
}

// Odd bytes of `odd`, even bytes of `even`.
TAE_INLINE __m512i merge(__m512i odd, __m512i even) {
  const __m512i high = _mm512_set1_epi16(static_cast<int16_t>(0xff00));
  return _mm512_ternarylogic_epi32(odd, even, high, 0xe4);  // high ? odd : even
}

// Bytes of two lines as pairs.
TAE_INLINE Words pairs(__m512i above, __m512i below) {
  return {merge(_mm512_slli_epi16(below, 8), above), merge(below, _mm512_srli_epi16(above, 8))};
}

TAE_INLINE Words weighted(const Words& pairs, __m512i weights) {
  return {_mm512_maddubs_epi16(weights, pairs.even), _mm512_maddubs_epi16(weights, pairs.odd)};
}

// The high bytes, rounded. A tie has 0 in the low byte (of sums with half a step added) and takes
// the even integer, or 255 (with half a step less one added) and takes the odd one: that an even
// number of steps lies between it and the zero point.
template <bool kOddPoint>
TAE_INLINE __m512i rounded(const Words& sum) {
  const __m512i high = merge(sum.odd, _mm512_srli_epi16(sum.even, 8));
  const __m512i low = merge(_mm512_slli_epi16(sum.odd, 8), sum.even);
  if constexpr (kOddPoint) return _mm512_or_si512(high, _mm512_subs_epu8(low, _mm512_set1_epi8(-2)));
  const __m512i keeps = _mm512_min_epu8(low, _mm512_set1_epi8(1));
  return _mm512_ternarylogic_epi32(high, keeps, _mm512_set1_epi8(-2), 0xe0);  // high & (keeps | 254)
}

TAE_INLINE __m512i weight_pair(int above, int below) {
  return _mm512_set1_epi16(static_cast<int16_t>(below << 8 | above));
}

// A column of one line of the result: 3/4 of it, with what rounds, and 1/4.
struct [[gnu::visibility("hidden")]] Column {
  Words most, rest;
};

// One of the two lines.
template <bool kOddPoint>
class [[gnu::visibility("hidden")]] Line {
 public:
  // Weights of the lines above and below in quarters.
  Line(int above, int below, __m512i rounding, void* dst, int64_t channels)
      : most_(weight_pair(48 * above, 48 * below)),
        rest_(weight_pair(16 * above, 16 * below)),
        rounding_(rounding),
        dst_(static_cast<uint8_t*>(dst)),
        channels_(channels) {}

  TAE_INLINE Column column(const Words& pairs) const {
    return {add(weighted(pairs, most_), {rounding_, rounding_}), weighted(pairs, rest_)};
  }
  // `count` channels from `at` at a position, which lies nearer to one of two columns.
  TAE_INLINE void write(int64_t position, int64_t at, int64_t count, const Column& near,
                        const Column& far) const {
    if (dst_ == nullptr) return;
    store_bytes(dst_ + position * channels_ + at, rounded<kOddPoint>(add(near.most, far.rest)), count);
  }

 private:
  __m512i most_, rest_, rounding_;
  uint8_t* dst_;
  int64_t channels_;
};

// Columns whose values of all channels, of four lines, stay in L1.
constexpr int64_t kTileBytes = 4096;

// 64 channels from column to column, each of which four values of the result need.
template <bool kOddPoint>
TAE_INLINE void double_run(const uint8_t* above, const uint8_t* below, int64_t width, int64_t channels,
                           bool is_signed, void* upper_dst, void* lower_dst) {
  const __m512i flip = _mm512_set1_epi8(is_signed ? 0 : -128);
  const int rounding = (is_signed ? 0 : 0x8000) + (kOddPoint ? 0x7f : 0x80);
  const __m512i half = _mm512_set1_epi16(static_cast<int16_t>(rounding));
  const Line<kOddPoint> upper(3, 1, half, upper_dst, channels), lower(1, 3, half, lower_dst, channels);
  const int64_t tile = std::max<int64_t>(4, kTileBytes / channels);
  for (int64_t begin = 0; begin < width; begin += tile) {
    const int64_t end = std::min(width, begin + tile);
    for (int64_t at = 0; at < channels; at += 64) {
      const int64_t count = channels - at;
      const __mmask64 mask = first_bytes(count);
      const auto pairs_of = [&](int64_t x) __attribute__((always_inline)) {
        const int64_t from = x * channels + at;
        return pairs(_mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, above + from), flip),
                     _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, below + from), flip));
      };
      const Words first = pairs_of(std::max<int64_t>(0, begin - 1));
      Column left_upper = upper.column(first), left_lower = lower.column(first);
      for (int64_t x = begin; x < end; ++x) {
        const Words both = pairs_of(x);
        const Column here_upper = upper.column(both), here_lower = lower.column(both);
        if (x > 0) {
          upper.write(2 * x - 1, at, count, left_upper, here_upper);
          lower.write(2 * x - 1, at, count, left_lower, here_lower);
        }
        upper.write(2 * x, at, count, here_upper, left_upper);
        lower.write(2 * x, at, count, here_lower, left_lower);
        left_upper = here_upper;
        left_lower = here_lower;
      }
      if (end < width) continue;
      upper.write(2 * width - 1, at, count, left_upper, left_upper);
      lower.write(2 * width - 1, at, count, left_lower, left_lower);
    }
  }
}

}  // namespace

void double_lines__avx512(const void* above, const void* below, int64_t width, int64_t channels, DType dtype,
                          int32_t zero_point, void* upper, void* lower) {
  const uint8_t *a = static_cast<const uint8_t*>(above), *b = static_cast<const uint8_t*>(below);
  const bool is_signed = dtype == DType::qs8;
  if (zero_point % 2 != 0)
    double_run<true>(a, b, width, channels, is_signed, upper, lower);
  else
    double_run<false>(a, b, width, channels, is_signed, upper, lower);
}

}  // namespace tae::kernels
