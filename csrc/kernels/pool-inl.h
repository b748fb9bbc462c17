// The maxima and averages of elementwise.h, for elementwise-inl.h.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/element_run-inl.h"
#include "kernels/fetch_ahead.h"

namespace tae::kernels {
namespace {

// As many rows or positions as a window has: known when the loop is compiled, or 0.
template <int kCount>
TAE_VEC int64_t known(int64_t count) {
  return kCount > 0 ? kCount : count;
}

// Calls body with `count` as a constant where it is kFirst or kSecond, else with 0.
template <int kFirst, int kSecond, typename Body>
TAE_VEC void with_count(int64_t count, const Body& body) {
  if (count == kFirst) {
    body(std::integral_constant<int, kFirst>());
  } else if (count == kSecond) {
    body(std::integral_constant<int, kSecond>());
  } else {
    body(std::integral_constant<int, 0>());
  }
}

// In the order of the dtype: signed bytes are compared in the u8 domain.
template <Bytes kBytes>
struct Maximum {
  TAE_VEC VBytes load(const uint8_t* p, int64_t n) const {
    return kBytes == Bytes::s8 ? xor_bytes(load_group_bytes(p, n), flip) : load_group_bytes(p, n);
  }
  TAE_VEC VBytes load(const uint8_t* p, Whole) const {
    return kBytes == Bytes::s8 ? xor_bytes(load_bytes(p), flip) : load_bytes(p);
  }
  TAE_VEC void store(uint8_t* p, VBytes most, int64_t n) const {
    if constexpr (kBytes == Bytes::s8) most = xor_bytes(most, flip);
    store_group_bytes(p, most, n);
  }
  VBytes flip = set1_8(128);
};

void max_rows(const void* const* rows, int64_t count, int64_t channels, DType dtype, void* out) {
  uint8_t* dst = static_cast<uint8_t*>(out);
  with_bytes(dtype, [&](auto kind) {
    const Maximum<decltype(kind)::value> maximum;
    with_count<3, 2>(count, [&](auto fixed) {
      constexpr int kCount = decltype(fixed)::value;
      const uint8_t* first[kCount > 0 ? kCount : 1];
      for (int r = 0; r < kCount; ++r) first[r] = static_cast<const uint8_t*>(rows[r]);
      for_elements(channels, [&](int64_t at, auto n) {
        VBytes most = set1_8(0);
        for (int64_t r = 0; r < known<kCount>(count); ++r) {
          const uint8_t* row = kCount > 0 ? first[r] : static_cast<const uint8_t*>(rows[r]);
          most = max_u8(most, maximum.load(row + at, n));
        }
        maximum.store(dst + at, most, n);
      });
    });
  });
}

void max_windows(const void* line, int64_t origin, const PoolWindow* windows, int64_t step, int64_t outputs,
                 int64_t channels, DType dtype, void* out) {
  const uint8_t* src = static_cast<const uint8_t*>(line);
  uint8_t* dst = static_cast<uint8_t*>(out);
  const int64_t next = step * channels;
  with_bytes(dtype, [&](auto kind) {
    const Maximum<decltype(kind)::value> maximum;
    for (int64_t o = 0; o < outputs;) {
      const int64_t count = windows[o].count;
      with_count<3, 2>(count, [&](auto fixed) {
        for (; o < outputs && windows[o].count == count; ++o, dst += channels) {
          const uint8_t* first = src + (windows[o].first - origin) * channels;
          for_elements(channels, [&](int64_t at, auto n) {
            VBytes most = set1_8(0);
            for (int64_t k = 0; k < known<decltype(fixed)::value>(count); ++k)
              most = max_u8(most, maximum.load(first + k * next + at, n));
            maximum.store(dst + at, most, n);
          });
        }
      });
    }
  });
}

constexpr int64_t kAreasAhead = 4096;  // bytes: images beyond the caches gain more than those inside lose

// Windows of one size, up to the first of another; dst comes behind what was written.
template <Bytes kBytes, int kRows, int kAlong>
TAE_VEC const PoolWindow* max_areas_run(const void* const* lines, int64_t count, const PoolWindow* window,
                                        const PoolWindow* end, int64_t step, int64_t channels,
                                        uint8_t*& dst) {
  const Maximum<kBytes> maximum;
  const int64_t along = window->count, next = step * channels;
  const uint8_t* first[kRows > 0 ? kRows : 1];
  for (int r = 0; r < kRows; ++r) first[r] = static_cast<const uint8_t*>(lines[r]);
  for (; window < end && window->count == along; ++window, dst += channels) {
    // The CPU fetches ahead by itself within a page only.
    const int64_t ahead = window + 1 < end ? (window[1].first - window->first) * channels : 0;
    for (int r = 0; r < kRows; ++r)
      for (int64_t byte = 0; byte < ahead; byte += 64)
        fetch_ahead(first[r] + window->first * channels + byte, kAreasAhead);
    for_elements(channels, [&](int64_t at, auto n) {
      VBytes most = set1_8(0);
      for (int64_t r = 0; r < known<kRows>(count); ++r) {
        const uint8_t* line = kRows > 0 ? first[r] : static_cast<const uint8_t*>(lines[r]);
        for (int64_t k = 0; k < known<kAlong>(along); ++k)
          most = max_u8(most, maximum.load(line + window->first * channels + k * next + at, n));
      }
      maximum.store(dst + at, most, n);
    });
  }
  return window;
}

void max_areas(const void* const* lines, int64_t count, const PoolWindow* windows, int64_t step,
               int64_t outputs, int64_t channels, DType dtype, void* out) {
  uint8_t* dst = static_cast<uint8_t*>(out);
  const PoolWindow *window = windows, *end = windows + outputs;
  with_bytes(dtype, [&](auto kind) {
    with_count<3, 2>(count, [&](auto rows) {
      while (window < end)
        with_count<3, 2>(window->count, [&](auto along) {
          window = max_areas_run<decltype(kind)::value, decltype(rows)::value, decltype(along)::value>(
              lines, count, window, end, step, channels, dst);
        });
    });
  });
}

// A division by 2^k is a product with 2^-k, to the bit.
inline bool is_power_of_two(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7fffff) == 0;
}

// Rows whose sum of bytes fits 16 bits.
constexpr int64_t kWordRows = 256;

// With a divisor of 1 where it is in the scale.
template <Bytes kBytes, bool kDivides, int kCount>
TAE_VEC void average_lanes(const Finish& finish, const Operand& row, const void* const* rows, int64_t count,
                           int64_t outputs, int64_t channels, float divisor, void* dst) {
  const int64_t zero_sum = count * (row.zero_point + (kBytes == Bytes::s8 ? 128 : 0));
  const VF offset = vf(0x1p23f + static_cast<float>(zero_sum));
  const VF scale = vf(row.scale), parts = vf(divisor), inverse = vf(finish.inverse_scale);
  with_lane_writer(finish, dst, [&](const auto& write) {
    for (int64_t o = 0; o < outputs; ++o, rows += count) {
      const uint8_t* first[kCount > 0 ? kCount : 1];
      for (int r = 0; r < kCount; ++r) first[r] = static_cast<const uint8_t*>(rows[r]);
      for_elements(channels, [&](int64_t at, auto n) {
        const auto values = [&](int64_t r) __attribute__((always_inline)) {
          const uint8_t* from = kCount > 0 ? first[r] : static_cast<const uint8_t*>(rows[r]);
          const VBytes u = load_group_bytes(from + at, n);
          return kBytes == Bytes::s8 ? xor_bytes(u, set1_8(128)) : u;
        };
        VI low = vi(0), high = vi(0);
        int64_t r = 0;
        for (; r + 2 <= known<kCount>(count); r += 2) add_to_words(values(r), values(r + 1), low, high);
        if (r < known<kCount>(count)) add_to_words(values(r), set1_8(0), low, high);
        VF x[4];
        expand_words(low, high, x);
        for (VF& v : x) {
          v = mul(sub(v, offset), scale);
          v = mul(kDivides ? div(v, parts) : v, inverse);
        }
        write(o * channels + at, n, x);
      });
    }
  });
}

// Whether x * scale / divisor is x * (scale / divisor) for integers |x| <= most, to the bit: the
// divisor is a power of 2 and no result leaves the normal floats.
inline bool divides_scale(float scale, float divisor, float most) {
  constexpr float kLeast = std::numeric_limits<float>::min(), kMost = std::numeric_limits<float>::max();
  return is_power_of_two(divisor) && std::fabs(scale / divisor) >= kLeast && scale >= kLeast &&
         scale <= kMost / most && std::fabs(scale / divisor) <= kMost / most;
}

[[gnu::noinline]] void average_run(const Finish& finish, const Operand& row, const void* const* rows,
                                   int64_t count, int64_t outputs, int64_t channels, float divisor,
                                   void* dst) noexcept {
  const VI zero_sum = vi(static_cast<int32_t>(count * row.zero_point));
  const bool power = is_power_of_two(divisor);
  const VF scale = vf(row.scale), parts = vf(divisor), inverse = vf(1.f / divisor);
  const float farthest = kFarthest * static_cast<float>(count),
              most = farthest * row.scale / std::fabs(divisor);
  const bool in_lanes = count <= kWordRows && fits_lanes(finish, most * finish.inverse_scale);
  const bool scales = in_lanes && divides_scale(row.scale, divisor, farthest);
  Operand scaled = row;
  scaled.scale = row.scale / divisor;
  with_bytes(row.dtype, [&](auto kind) {
    constexpr Bytes kBytes = decltype(kind)::value;
    if (scales && count == 4)
      return average_lanes<kBytes, false, 4>(finish, scaled, rows, count, outputs, channels, 1.f, dst);
    if (scales)
      return average_lanes<kBytes, false, 0>(finish, scaled, rows, count, outputs, channels, 1.f, dst);
    if (in_lanes)
      return average_lanes<kBytes, true, 0>(finish, row, rows, count, outputs, channels, divisor, dst);
    with_writer(finish, dst, [&](const auto& write) {
      for (int64_t o = 0; o < outputs; ++o, rows += count)
        for_elements(channels, [&](int64_t at, auto n) {
          VI sum[4] = {vi(0), vi(0), vi(0), vi(0)};
          for (int64_t r = 0; r < count; ++r)
            for_group(n, [&](int j, auto tail) {
              sum[j] = add(sum[j], load_value<kBytes>(rows[r], at + j * kLanes, row.dtype, tail));
            });
          VF x[4];
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) x[j] = mul(to_float(sub(sum[j], zero_sum)), scale);
          for (VF& v : x) v = power ? mul(v, inverse) : div(v, parts);
          write(o * channels + at, n, x);
        });
    });
  });
}

}  // namespace
}  // namespace tae::kernels
