// Tables of the portable kernel, the choice of a level, and long data on all threads.
#include "kernels/crc32.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/parallel.h"

namespace tae::kernels {
namespace {

constexpr int kAtOnce = 8;
using Tables = std::array<std::array<uint32_t, 256>, kAtOnce>;

// tables[i][b]: what byte b adds to the register when i more bytes follow it.
constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t state = b;
    for (int bit = 0; bit < 8; ++bit) state = crc::times_x(state);
    tables[0][b] = state;
  }
  for (int i = 1; i < kAtOnce; ++i)
    for (uint32_t b = 0; b < 256; ++b)
      tables[i][b] = tables[0][tables[i - 1][b] & 255] ^ tables[i - 1][b] >> 8;
  return tables;
}

constexpr Tables kTables = make_tables();
constexpr size_t kChunk = 1 << 20;  // bytes of one thread's work; combining two costs below 1 us

}  // namespace

uint32_t crc32_bytes(uint32_t state, const uint8_t* data, size_t size) {
  for (; size >= kAtOnce; data += kAtOnce, size -= kAtOnce) {
    uint64_t eight;
    std::memcpy(&eight, data, kAtOnce);
    eight ^= state;
    state = 0;
    for (int i = 0; i < kAtOnce; ++i) state ^= kTables[kAtOnce - 1 - i][eight >> 8 * i & 255];
  }
  for (; size > 0; ++data, --size) state = kTables[0][(state ^ *data) & 255] ^ state >> 8;
  return state;
}

extern const Crc32Fn crc32__avx2;

Crc32Fn crc32_kernel(Isa isa) { return isa >= Isa::avx2 ? crc32__avx2 : crc32_bytes; }

uint32_t crc32(Isa isa, uint32_t start, const uint8_t* data, size_t size) {
  const Crc32Fn kernel = crc32_kernel(isa);
  if (size < 2 * kChunk) return ~kernel(~start, data, size);
  // Each chunk from a register of 0; a register moves over n bytes by x^(8n).
  const int64_t chunks = static_cast<int64_t>((size + kChunk - 1) / kChunk);
  std::vector<uint32_t> states(static_cast<size_t>(chunks));
  parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const size_t at = static_cast<size_t>(i) * kChunk;
      states[static_cast<size_t>(i)] = kernel(i == 0 ? ~start : 0, data + at, std::min(kChunk, size - at));
    }
  });
  constexpr uint32_t over_chunk = crc::power_of_x(8 * kChunk);
  uint32_t state = states[0];
  for (int64_t i = 1; i + 1 < chunks; ++i)
    state = crc::multiply(state, over_chunk) ^ states[static_cast<size_t>(i)];
  const size_t last = size - static_cast<size_t>(chunks - 1) * kChunk;
  return ~(crc::multiply(state, crc::power_of_x(8 * last)) ^ states.back());
}

}  // namespace tae::kernels
