// Folding by carry-less multiplication: 128 bits that lie D bits before others are replaced by
// their product with x^D, added to those. Four such registers run side by side.
#include <immintrin.h>

#include "kernels/crc32.h"

namespace tae::kernels {
namespace {

// A product of two reflected 64-bit numbers lies one bit too low and 32 bits are the width of the
// remainder: the first eight bytes of a register take x^(D + 32), the others x^(D - 32).
template <int kDistance>
__m128i factors() {
  constexpr uint64_t first = uint64_t{crc::power_of_x(kDistance + 32)} << 1;
  constexpr uint64_t second = uint64_t{crc::power_of_x(kDistance - 32)} << 1;
  return _mm_set_epi64x(static_cast<int64_t>(second), static_cast<int64_t>(first));
}

__m128i fold(__m128i a, __m128i by, __m128i onto) {
  const __m128i first = _mm_clmulepi64_si128(a, by, 0x00), second = _mm_clmulepi64_si128(a, by, 0x11);
  return _mm_xor_si128(_mm_xor_si128(first, second), onto);
}

__m128i load(const uint8_t* data) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(data)); }

constexpr size_t kRegister = 16;
constexpr size_t kBlock = 4 * kRegister;

uint32_t run(uint32_t state, const uint8_t* data, size_t size) {
  if (size < 2 * kBlock) return crc32_bytes(state, data, size);
  __m128i a = _mm_xor_si128(load(data), _mm_cvtsi32_si128(static_cast<int>(state)));
  __m128i b = load(data + kRegister), c = load(data + 2 * kRegister), d = load(data + 3 * kRegister);
  const __m128i over_block = factors<8 * kBlock>(), over_register = factors<8 * kRegister>();
  for (data += kBlock, size -= kBlock; size >= kBlock; data += kBlock, size -= kBlock) {
    a = fold(a, over_block, load(data));
    b = fold(b, over_block, load(data + kRegister));
    c = fold(c, over_block, load(data + 2 * kRegister));
    d = fold(d, over_block, load(data + 3 * kRegister));
  }
  a = fold(fold(fold(a, over_register, b), over_register, c), over_register, d);
  for (; size >= kRegister; data += kRegister, size -= kRegister) a = fold(a, over_register, load(data));
  uint8_t rest[kRegister];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(rest), a);
  return crc32_bytes(crc32_bytes(0, rest, kRegister), data, size);
}

}  // namespace

extern const Crc32Fn crc32__avx2;
const Crc32Fn crc32__avx2 = run;

}  // namespace tae::kernels
