// Weight packing. The inner step is a transpose of 4-byte words, which SSE2 (in
// every x86-64) does at memory speed.
#include <emmintrin.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "core/parallel.h"
#include "core/round_up.h"
#include "kernels/gemm.h"

namespace tae::kernels {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

// Four rows of 16 bytes become words [4 quads][4 columns] of the panel.
inline void transpose_4x4(const int8_t* const row[4], int8_t* out) {
  __m128i r[4];
  for (int i = 0; i < 4; ++i) r[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row[i]));
  const __m128i lo01 = _mm_unpacklo_epi32(r[0], r[1]);
  const __m128i lo23 = _mm_unpacklo_epi32(r[2], r[3]);
  const __m128i hi01 = _mm_unpackhi_epi32(r[0], r[1]);
  const __m128i hi23 = _mm_unpackhi_epi32(r[2], r[3]);
  __m128i* o = reinterpret_cast<__m128i*>(out);
  constexpr int64_t kStep = kQuadBytes / 16;
  _mm_store_si128(o, _mm_unpacklo_epi64(lo01, lo23));
  _mm_store_si128(o + kStep, _mm_unpackhi_epi64(lo01, lo23));
  _mm_store_si128(o + 2 * kStep, _mm_unpacklo_epi64(hi01, hi23));
  _mm_store_si128(o + 3 * kStep, _mm_unpackhi_epi64(hi01, hi23));
}

// Sum of s8 values: psadbw adds u8, so shift by 128 and take it off again.
int32_t sum_s8(const int8_t* x, int64_t k) {
  const __m128i flip = _mm_set1_epi8(static_cast<char>(0x80));
  const __m128i zero = _mm_setzero_si128();
  __m128i sum = zero;
  int64_t i = 0;
  for (; i + 16 <= k; i += 16) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i));
    sum = _mm_add_epi64(sum, _mm_sad_epu8(_mm_xor_si128(v, flip), zero));
  }
  int64_t total = _mm_cvtsi128_si64(sum) + _mm_cvtsi128_si64(_mm_unpackhi_epi64(sum, sum));
  total -= 128 * i;
  for (; i < k; ++i) total += x[i];
  return static_cast<int32_t>(total);
}

// k values copied per step: the part of the panel written meanwhile (16 KB)
// stays in L1, and each row is read in runs of four cache lines.
constexpr int64_t kPackBlock = 256;

// Four columns by 16 values of k where the weight may end.
void pack_edge(const int8_t* weight, int64_t k, int64_t columns, int64_t c, int64_t k0, int8_t* out) {
  alignas(16) int8_t edge[4][16] = {};
  const int8_t* row[4];
  for (int i = 0; i < 4; ++i) {
    row[i] = edge[i];
    if (c + i >= columns || k0 >= k) continue;
    const int64_t count = k - k0 < 16 ? k - k0 : 16;
    std::memcpy(edge[i], weight + (c + i) * k + k0, static_cast<size_t>(count));
  }
  transpose_4x4(row, out);
}

void pack_panel(const int8_t* weight, int64_t k, int64_t columns, int64_t k_pad, int8_t* panel,
                int32_t* column_sum) {
  for (int64_t k0 = 0; k0 < k_pad; k0 += kPackBlock) {
    const int64_t k1 = k0 + kPackBlock < k_pad ? k0 + kPackBlock : k_pad;
    for (int64_t c = 0; c < kPanelColumns; c += 4) {
      for (int64_t i = k0; i < k1; i += 16) {
        int8_t* out = panel + i / 4 * kQuadBytes + c * 4;
        if (i + 16 > k || c + 4 > columns) {
          pack_edge(weight, k, columns, c, i, out);
          continue;
        }
        const int8_t* w = weight + c * k + i;
        const int8_t* const row[4] = {w, w + k, w + 2 * k, w + 3 * k};
        transpose_4x4(row, out);
      }
    }
  }
  for (int64_t c = 0; c < kPanelColumns; ++c) column_sum[c] = c < columns ? sum_s8(weight + c * k, k) : 0;
}

}  // namespace

// Large blocks ask for huge pages: a GEMV walks through 16 MB in 0.3 ms, and 4 KB pages
// cost it a TLB miss every 64 lines.
void* allocate_packed(int64_t bytes) {
  const bool huge = bytes >= kHugePage;
  void* p = nullptr;
  if (posix_memalign(&p, huge ? kHugePage : 64, static_cast<size_t>(bytes)) != 0) throw std::bad_alloc();
  if (huge) madvise(p, static_cast<size_t>(bytes / kHugePage * kHugePage), MADV_HUGEPAGE);
  return p;
}

void PackedWeight::Free::operator()(void* p) const { std::free(p); }

PackedWeight::PackedWeight(const int8_t* weight, int64_t n, int64_t k, uint8_t flip)
    : n_(n), k_(k), k_pad_(round_up(k, kKMultiple)), panels_(ceil_div(n, kPanelColumns)) {
  if (panels_ == 0) return;
  const int64_t data_bytes = panels_ * panel_bytes();
  if (data_bytes != 0) data_.reset(static_cast<int8_t*>(allocate_packed(data_bytes)));
  column_sum_.reset(static_cast<int32_t*>(allocate_packed(panels_ * kPanelColumns * 4)));
  // A panel takes about panel_bytes / 8 ns; below 64 KB threads do not pay.
  const int64_t grain = 1 + (int64_t{1} << 16) / (panel_bytes() + 1);
  parallel_for(panels_, grain, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t c0 = p * kPanelColumns;
      const int64_t columns = n_ - c0 < kPanelColumns ? n_ - c0 : kPanelColumns;
      int8_t* panel = data_.get() + p * panel_bytes();
      pack_panel(weight + c0 * k_, k_, columns, k_pad_, panel, column_sum_.get() + c0);
      if (flip != 0)
        for (int64_t i = 0; i < panel_bytes(); ++i) panel[i] = static_cast<int8_t>(panel[i] ^ flip);
    }
  });
}

size_t PackedWeight::bytes() const {
  return static_cast<size_t>(panels_ * (panel_bytes() + kPanelColumns * 4));
}

}  // namespace tae::kernels
