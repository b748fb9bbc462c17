// Depthwise with VPDPBUSD: bytes of 4 taps are interleaved, so that one dot product of 4
// bytes is 4 taps of one channel.
//
// Unpacking works inside 128-bit lanes: vector i of 4 holds channels 16 * lane + 4 * i + 0..3.
// The weights lie in that order, and the sums are put straight at the end.

// GCC 12 takes the undefined pass-through operands of avx512fintrin.h for variables
// that we forgot to set (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <immintrin.h>

#include "kernels/depthwise.h"

namespace tae::kernels {
namespace {

constexpr int64_t kTaps = 4;
constexpr int64_t kGroupBytes = kDepthwiseChannels * kTaps;

// [strip][group of taps][vector][lane][4 channels][4 taps]
void pack(const int8_t* weight, int64_t channels, int64_t taps, int8_t* packed) {
  const int64_t groups = (taps + kTaps - 1) / kTaps;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t t = 0; t < taps; ++t) {
      const int64_t strip = c / kDepthwiseChannels, lane = c % 64 / 16, vector = c % 16 / 4;
      const int64_t place = vector * 64 + lane * 16 + c % 4 * kTaps + t % kTaps;
      packed[(strip * groups + t / kTaps) * kGroupBytes + place] = weight[c * taps + t];
    }
}

struct Sums {
  __m512i v0, v1, v2, v3;
};

inline __attribute__((always_inline)) __m512i load(const uint8_t* p, __mmask64 mask, __m512i flip) {
  return _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, p), flip);
}

inline __attribute__((always_inline)) void add_taps(Sums& s, const uint8_t* const* taps, int64_t c,
                                                    __mmask64 mask, __m512i flip, const int8_t* w) {
  const __m512i t0 = load(taps[0] + c, mask, flip), t1 = load(taps[1] + c, mask, flip);
  const __m512i t2 = load(taps[2] + c, mask, flip), t3 = load(taps[3] + c, mask, flip);
  const __m512i low01 = _mm512_unpacklo_epi8(t0, t1), high01 = _mm512_unpackhi_epi8(t0, t1);
  const __m512i low23 = _mm512_unpacklo_epi8(t2, t3), high23 = _mm512_unpackhi_epi8(t2, t3);
  s.v0 = _mm512_dpbusd_epi32(s.v0, _mm512_unpacklo_epi16(low01, low23), _mm512_loadu_si512(w));
  s.v1 = _mm512_dpbusd_epi32(s.v1, _mm512_unpackhi_epi16(low01, low23), _mm512_loadu_si512(w + 64));
  s.v2 = _mm512_dpbusd_epi32(s.v2, _mm512_unpacklo_epi16(high01, high23), _mm512_loadu_si512(w + 128));
  s.v3 = _mm512_dpbusd_epi32(s.v3, _mm512_unpackhi_epi16(high01, high23), _mm512_loadu_si512(w + 192));
}

// Lane l of vector i is lane i of output l.
inline __attribute__((always_inline)) void store_straight(const Sums& s, int32_t* acc) {
  const __m512i a = _mm512_shuffle_i32x4(s.v0, s.v1, 0x44), b = _mm512_shuffle_i32x4(s.v0, s.v1, 0xee);
  const __m512i c = _mm512_shuffle_i32x4(s.v2, s.v3, 0x44), d = _mm512_shuffle_i32x4(s.v2, s.v3, 0xee);
  _mm512_storeu_si512(acc, _mm512_shuffle_i32x4(a, c, 0x88));
  _mm512_storeu_si512(acc + 16, _mm512_shuffle_i32x4(a, c, 0xdd));
  _mm512_storeu_si512(acc + 32, _mm512_shuffle_i32x4(b, d, 0x88));
  _mm512_storeu_si512(acc + 48, _mm512_shuffle_i32x4(b, d, 0xdd));
}

void run(const DepthwisePixel& p) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(p.flip));
  const int8_t* w = p.weight;
  for (int64_t c = 0; c < p.channels; c += kDepthwiseChannels) {
    const int64_t left = p.channels - c;
    const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
    const __m512i zero = _mm512_setzero_si512();
    Sums s{zero, zero, zero, zero};
    for (int64_t t = 0; t < p.num_taps; t += kTaps, w += kGroupBytes)
      add_taps(s, p.taps + t, c, mask, flip, w);
    store_straight(s, p.acc + c);
  }
}

}  // namespace

extern const DepthwiseKernels depthwise_kernels__avx512vnni;
const DepthwiseKernels depthwise_kernels__avx512vnni = {kTaps, pack, run};

}  // namespace tae::kernels
