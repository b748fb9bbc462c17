#include "engines/native/weight4_pack.h"

#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "core/round_up.h"
#include "kernels/gemm.h"

namespace tae::native {
namespace {

constexpr uint8_t kZeros = 0x88;  // two weights of 0

// Four bytes hold k .. k + 7 of one column in order; the block wants k + i beside
// k + 4 + i. Values past the row become 0, whatever the last nibble of an odd k holds.
void pack_column(const uint8_t* row, int64_t k, int64_t first, uint8_t* out) {
  uint8_t source[4] = {kZeros, kZeros, kZeros, kZeros};
  const int64_t bytes = (k + 1) / 2, count = std::min<int64_t>(4, bytes - first);
  if (row != nullptr && count > 0) {
    std::memcpy(source, row + first, static_cast<size_t>(count));
    if (k % 2 != 0 && first + count == bytes)
      source[count - 1] = static_cast<uint8_t>((source[count - 1] & 15) | (kZeros & 0xf0));
  }
  for (int i = 0; i < 2; ++i) {
    const uint8_t low = source[i], high = source[i + 2];
    out[2 * i] = static_cast<uint8_t>((low & 15) | (high << 4));
    out[2 * i + 1] = static_cast<uint8_t>((low >> 4) | (high & 0xf0));
  }
}

}  // namespace

PackedWeight4::PackedWeight4(const WeightOnlyProblem& p)
    : group_(p.group),
      groups_(p.groups()),
      panels_(ceil_div(p.n, kernels::kPanelColumns)),
      data_(static_cast<uint8_t*>(
          kernels::allocate_packed(std::max<int64_t>(64, static_cast<int64_t>(bytes()))))) {
  const uint8_t* weight = static_cast<const uint8_t*>(p.weight);
  const int64_t row_bytes = (p.k + 1) / 2, columns = kernels::kPanelColumns;
  parallel_for(panels_, 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      for (int64_t g = 0; g < groups_; ++g) {
        uint8_t* out = data_.get() + panel * panel_bytes() + g * block_bytes();
        float* scales = reinterpret_cast<float*>(out + weight_bytes());
        for (int64_t j = 0; j < columns; ++j) {
          const int64_t n = panel * columns + j;
          const uint8_t* row = n < p.n ? weight + n * row_bytes : nullptr;
          for (int64_t step = 0; step < group_ / 8; ++step)
            pack_column(row, p.k, g * group_ / 2 + 4 * step, out + step * kernels::kStep4 + 4 * j);
          scales[j] = n < p.n ? p.weight_scale[n * groups_ + g] : 0.f;
        }
      }
    }
  });
}

}  // namespace tae::native
