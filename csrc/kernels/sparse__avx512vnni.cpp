// Compiled with the flags of its level: everything but the table has internal linkage.
#include "kernels/sparse_avx512-inl.h"
#include "kernels/vbmi_table-inl.h"

namespace tae::kernels {
namespace {

struct Vnni512 : Vec512 {
  static T weight(int32_t quad) { return _mm512_set1_epi32(quad); }
  static T weights(const int8_t* p) { return load(p); }
  static T dot(T acc, T x, T w) { return _mm512_dpbusd_epi32(acc, x, w); }
};

// Half a vector for up to 8 input rows: two 256-bit loads a cycle, one of 512.
struct Vnni256 {
  using T = __m256i;
  static constexpr int kBytes = 32;
  static T zero() { return _mm256_setzero_si256(); }
  static T load(const void* p) { return _mm256_loadu_si256(static_cast<const T*>(p)); }
  static void store(void* p, T v) { _mm256_storeu_si256(static_cast<T*>(p), v); }
  static T weight(int32_t quad) { return _mm256_set1_epi32(quad); }
  static T dot(T acc, T x, T w) { return _mm256_dpbusd_epi32(acc, x, w); }
  static T lo8(T a, T b) { return _mm256_unpacklo_epi8(a, b); }
  static T hi8(T a, T b) { return _mm256_unpackhi_epi8(a, b); }
  static T lo16(T a, T b) { return _mm256_unpacklo_epi16(a, b); }
  static T hi16(T a, T b) { return _mm256_unpackhi_epi16(a, b); }
};

// A shuffle in place of a load each.
template <>
class FourQuads<Vnni512> {
 public:
  explicit FourQuads(const int8_t* quads)
      : quads_(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(quads)))) {}
  __m512i repeat(int r) const {
    if (r == 0) return _mm512_shuffle_epi32(quads_, _MM_PERM_AAAA);
    if (r == 1) return _mm512_shuffle_epi32(quads_, _MM_PERM_BBBB);
    if (r == 2) return _mm512_shuffle_epi32(quads_, _MM_PERM_CCCC);
    return _mm512_shuffle_epi32(quads_, _MM_PERM_DDDD);
  }

 private:
  __m512i quads_;
};

void rows4_vnni(const SparseRows4& w, const uint8_t* xt, int64_t rows, bool add, int32_t* c) {
  if (rows <= 8) return rows4_part<Vnni256, 1>(w, xt, 0, add, c);
  rows4<Vnni512>(w, xt, rows, add, c);
}

void rows8_vnni(const SparseRows8& w, const uint8_t* xt, int64_t rows, int32_t* c) {
  if (rows <= 8) return rows8_part<Vnni256, 8, false, false>(w, xt, 0, 0, c);
  rows8<Vnni512>(w, xt, rows, c);
}

// sparse.cpp asks the CPU for AVX512-VBMI before it takes the table with this.
[[gnu::target("avx512vbmi")]] void gather_by_permutation(const SparseGather& w, const uint8_t* x,
                                                         uint8_t* quads) {
  const uint8_t* places = w.places;
  for (int64_t r = 0; r < w.count; ++r) {
    const ByteTable segment = load_table(x + w.runs[r].segment * kSegment);
    int slots = w.runs[r].slots;
    for (; slots > 1; slots -= 2, places += 2 * kSlot, quads += 2 * kSlot)
      Vnni512::store(quads, look_up(segment, Vnni512::load(places)));
    if (slots > 0) {
      const __m512i one = look_up(segment, _mm512_castsi256_si512(Vnni256::load(places)));
      Vnni256::store(quads, _mm512_castsi512_si256(one));
      places += kSlot;
      quads += kSlot;
    }
  }
}

}  // namespace

extern const SparseKernels sparse_kernels__avx512vnni;
const SparseKernels sparse_kernels__avx512vnni = {
    "avx512 vnni",     to_quads_vector, to_bytes_vector, rows4_vnni,
    rows8_vnni,        to_table_vector, nullptr,         gemv8_fours<Vnni512, FromTable>,
    transpose16_vector};

extern const SparseKernels sparse_kernels__avx512vnni_vbmi;
const SparseKernels sparse_kernels__avx512vnni_vbmi = {
    "avx512 vnni vbmi", to_quads_vector, to_bytes_vector,       rows4_vnni,
    rows8_vnni,         nullptr,         gather_by_permutation, gemv8_fours<Vnni512, FromQuads>,
    transpose16_vector};

}  // namespace tae::kernels
