// A value of the result is the high byte of a 16-bit sum: signed bytes times weights that add up
// to 256. The sums of even and of odd channels are in vectors of their own.
#include <immintrin.h>

#include <type_traits>

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

// One of the two lines, which may be missing.
template <bool kOddPoint, bool kHere>
class [[gnu::visibility("hidden")]] Line {
 public:
  // Weights of the lines above and below in quarters.
  Line(int above, int below, __m512i rounding, void* dst, int64_t channels)
      : most_(weight_pair(48 * above, 48 * below)),
        rest_(weight_pair(16 * above, 16 * below)),
        rounding_(rounding),
        dst_(static_cast<uint8_t*>(dst)),
        channels_(channels) {}

  TAE_INLINE void set(const Words& pairs, Column* column) const {
    if constexpr (!kHere) return;
    column->most = add(weighted(pairs, most_), {rounding_, rounding_});
    column->rest = weighted(pairs, rest_);
  }
  // `count` channels from `at` at a position, which lies nearer to one of two columns.
  TAE_INLINE void write(int64_t position, int64_t at, int64_t count, const Column& near,
                        const Column& far) const {
    if constexpr (!kHere) return;
    store_bytes(dst_ + position * channels_ + at, rounded<kOddPoint>(add(near.most, far.rest)), count);
  }

 private:
  __m512i most_, rest_, rounding_;
  uint8_t* dst_;
  int64_t channels_;
};

struct [[gnu::visibility("hidden")]] Columns {
  Column upper, lower;
};

struct Lines {
  const uint8_t *above, *below;
  int64_t width, channels;
  DType dtype;
  void *upper, *lower;
};

// From column to column; four values of the result need each.
template <bool kOddPoint, bool kUpper, bool kLower>
TAE_INLINE void double_run(const Lines& l) {
  const bool is_signed = l.dtype == DType::qs8;
  const __m512i flip = _mm512_set1_epi8(is_signed ? 0 : -128);
  const int rounding = (is_signed ? 0 : 0x8000) + (kOddPoint ? 0x7f : 0x80);
  const __m512i half = _mm512_set1_epi16(static_cast<int16_t>(rounding));
  const Line<kOddPoint, kUpper> upper(3, 1, half, l.upper, l.channels);
  const Line<kOddPoint, kLower> lower(1, 3, half, l.lower, l.channels);
  const auto run = [&](int64_t at, auto count) __attribute__((always_inline)) {
    const __mmask64 mask = first_bytes(count);
    const auto set = [&](int64_t x, Columns* here) __attribute__((always_inline)) {
      const int64_t from = x * l.channels + at;
      const Words both = pairs(_mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, l.above + from), flip),
                               _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, l.below + from), flip));
      upper.set(both, &here->upper);
      lower.set(both, &here->lower);
    };
    const auto put = [&](int64_t o, const Columns& near, const Columns& far) __attribute__((always_inline)) {
      upper.write(o, at, count, near.upper, far.upper);
      lower.write(o, at, count, near.lower, far.lower);
    };
    const auto step = [&](int64_t x, const Columns& left, Columns* here) __attribute__((always_inline)) {
      set(x, here);
      put(2 * x - 1, left, *here);
      put(2 * x, *here, left);
    };
    Columns even, odd;  // by the column's number
    set(0, &even);
    put(0, even, even);
    int64_t x = 1;
    for (; x + 1 < l.width; x += 2) {
      step(x, even, &odd);
      step(x + 1, odd, &even);
    }
    if (x < l.width) {
      step(x, even, &odd);
      even = odd;
    }
    put(2 * l.width - 1, even, even);
  };
  int64_t at = 0;
  for (; at + 64 <= l.channels; at += 64) run(at, std::integral_constant<int64_t, 64>());
  if (at < l.channels) run(at, l.channels - at);
}

template <bool kOddPoint>
void double_either(const Lines& l) {
  if (l.upper == nullptr)
    double_run<kOddPoint, false, true>(l);
  else if (l.lower == nullptr)
    double_run<kOddPoint, true, false>(l);
  else
    double_run<kOddPoint, true, true>(l);
}

}  // namespace

void double_lines__avx512(const void* above, const void* below, int64_t width, int64_t channels, DType dtype,
                          int32_t zero_point, void* upper, void* lower) {
  const Lines l = {static_cast<const uint8_t*>(above),
                   static_cast<const uint8_t*>(below),
                   width,
                   channels,
                   dtype,
                   upper,
                   lower};
  if (zero_point % 2 != 0)
    double_either<true>(l);
  else
    double_either<false>(l);
}

}  // namespace tae::kernels
