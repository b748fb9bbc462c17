// Compiled with the flags of its level: everything but the table has internal linkage.
// One row reads every weight once, as fast as the memory below: both planes meet a
// vector of weights while it is in a register.
#include "kernels/weight_only-inl.h"

namespace tae::kernels {
namespace {

constexpr int64_t kAhead = 4096;  // bytes between a load and its prefetch

TAE_VEC __m512i quad(const uint8_t* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}

TAE_VEC __m512i fetch_and_load(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p + kAhead), _MM_HINT_T0);
  return _mm512_load_si512(p);
}

// Named members, not an array: GCC 12 would keep an array in memory.
struct Sums {
  __m512i c0, c1, c2, c3;
};

TAE_VEC void dot_u8(Sums& s, __m512i x, const Sums& w) {
  s.c0 = _mm512_dpbusd_epi32(s.c0, x, w.c0);
  s.c1 = _mm512_dpbusd_epi32(s.c1, x, w.c1);
  s.c2 = _mm512_dpbusd_epi32(s.c2, x, w.c2);
  s.c3 = _mm512_dpbusd_epi32(s.c3, x, w.c3);
}

// The weights are the unsigned side.
TAE_VEC void dot_s8(Sums& s, const Sums& w, __m512i x) {
  s.c0 = _mm512_dpbusd_epi32(s.c0, w.c0, x);
  s.c1 = _mm512_dpbusd_epi32(s.c1, w.c1, x);
  s.c2 = _mm512_dpbusd_epi32(s.c2, w.c2, x);
  s.c3 = _mm512_dpbusd_epi32(s.c3, w.c3, x);
}

TAE_VEC Sums all(__m512i x) { return {x, x, x, x}; }

template <int kPlanes>
[[gnu::noinline]] void row8_body(const WeightOnlyRow& row) noexcept {
  for (int64_t p = 0; p < row.panels; ++p) {
    const uint8_t* b = row.weight + p * row.panel_bytes;
    Sums high = all(_mm512_setzero_si512()), low = high;
    for (int64_t k = 0; k < row.k_pad; k += 4, b += 256) {
      const Sums w = {fetch_and_load(b), fetch_and_load(b + 64), fetch_and_load(b + 128),
                      fetch_and_load(b + 192)};
      dot_u8(high, quad(row.high + k), w);
      if constexpr (kPlanes == 2) dot_u8(low, quad(row.low + k), w);
    }
    int32_t c[2][64];
    for (int i = 0; i < 2; ++i) {
      const Sums& s = i == 0 ? high : low;
      _mm512_storeu_si512(c[i], s.c0);
      _mm512_storeu_si512(c[i] + 16, s.c1);
      _mm512_storeu_si512(c[i] + 32, s.c2);
      _mm512_storeu_si512(c[i] + 48, s.c3);
    }
    combine8_body(kPlanes, c[0], c[1], row.column_sum + 64 * p, row.v + 64 * p);
  }
}

void row8(const WeightOnlyRow& row) {
  const DefaultFloatEnv env;
  if (row.planes == 2)
    row8_body<2>(row);
  else
    row8_body<1>(row);
}

template <int kPlanes>
TAE_VEC __m512 scaled(__m512 v, __m512i high, __m512i low, __m512 scale) {
  const __m512i sum = kPlanes == 2 ? _mm512_add_epi32(_mm512_slli_epi32(high, 8), low) : high;
  return _mm512_add_ps(v, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
}

template <int kPlanes>
[[gnu::noinline]] void row4_body(const WeightOnlyRow& row) noexcept {
  const __m512i mask = _mm512_set1_epi8(0x0f), zero = _mm512_setzero_si512();
  const int64_t groups = row.k_pad / row.group;
  for (int64_t p = 0; p < row.panels; ++p) {
    const uint8_t* b = row.weight + p * row.panel_bytes;
    const uint8_t* xh = row.high;
    const uint8_t* xl = row.low;
    __m512 v0 = _mm512_setzero_ps(), v1 = v0, v2 = v0, v3 = v0;
    for (int64_t g = 0; g < groups; ++g) {
      // The group's correction for w + 8 enters one of the two sums.
      const __m512i start = _mm512_set1_epi32(row.group_sums[g]);
      Sums high = all(kPlanes == 2 ? zero : start), low = all(start);
      for (int64_t k = 0; k < row.group; k += 8, b += kStep4, xh += 8) {
        const Sums x = {fetch_and_load(b), fetch_and_load(b + 64), fetch_and_load(b + 128),
                        fetch_and_load(b + 192)};
        const Sums even = {_mm512_and_si512(x.c0, mask), _mm512_and_si512(x.c1, mask),
                           _mm512_and_si512(x.c2, mask), _mm512_and_si512(x.c3, mask)};
        dot_s8(high, even, quad(xh));
        if constexpr (kPlanes == 2) dot_s8(low, even, quad(xl));
        const Sums odd = {_mm512_and_si512(_mm512_srli_epi16(x.c0, 4), mask),
                          _mm512_and_si512(_mm512_srli_epi16(x.c1, 4), mask),
                          _mm512_and_si512(_mm512_srli_epi16(x.c2, 4), mask),
                          _mm512_and_si512(_mm512_srli_epi16(x.c3, 4), mask)};
        dot_s8(high, odd, quad(xh + 4));
        if constexpr (kPlanes == 2) {
          dot_s8(low, odd, quad(xl + 4));
          xl += 8;
        }
      }
      const float* scale = reinterpret_cast<const float*>(b);
      for (int64_t line = 0; line < 256; line += 64)
        _mm_prefetch(reinterpret_cast<const char*>(b + line + kAhead), _MM_HINT_T0);
      v0 = scaled<kPlanes>(v0, high.c0, low.c0, _mm512_load_ps(scale));
      v1 = scaled<kPlanes>(v1, high.c1, low.c1, _mm512_load_ps(scale + 16));
      v2 = scaled<kPlanes>(v2, high.c2, low.c2, _mm512_load_ps(scale + 32));
      v3 = scaled<kPlanes>(v3, high.c3, low.c3, _mm512_load_ps(scale + 48));
      b += 256;
    }
    float* v = row.v + 64 * p;
    _mm512_storeu_ps(v, v0);
    _mm512_storeu_ps(v + 16, v1);
    _mm512_storeu_ps(v + 32, v2);
    _mm512_storeu_ps(v + 48, v3);
  }
}

// -8 * sum of q over each group: what w + 8 in the place of w adds too much.
void sum_groups(const WeightOnlyRow& row) {
  const __m256i ones = _mm256_set1_epi8(1);
  for (int64_t g = 0; g * row.group < row.k_pad; ++g) {
    __m256i high = _mm256_setzero_si256(), low = high;
    for (int64_t k = g * row.group; k < (g + 1) * row.group; k += 32) {
      const auto part = [k](const uint8_t* p) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + k));
      };
      high = _mm256_dpbusd_epi32(high, ones, part(row.high));
      if (row.planes == 2) low = _mm256_dpbusd_epi32(low, ones, part(row.low));
    }
    if (row.planes == 2) high = _mm256_add_epi32(_mm256_slli_epi32(high, 8), low);
    row.group_sums[g] = -8 * _mm512_reduce_add_epi32(_mm512_zextsi256_si512(high));
  }
}

void row4(const WeightOnlyRow& row) {
  const DefaultFloatEnv env;
  sum_groups(row);
  if (row.planes == 2)
    row4_body<2>(row);
  else
    row4_body<1>(row);
}

}  // namespace

extern const WeightOnlyKernels weight_only_kernels__avx512vnni;
const WeightOnlyKernels weight_only_kernels__avx512vnni = {
    "avx512 vnni", to_planes_f32, to_planes_bf16, unpack4, combine8,
    accumulate4,   finish_f32,    finish_bf16,    row8,    row4};

}  // namespace tae::kernels
