// Memory that a loop comes to soon, for loops that do little with each byte.
#pragma once

#include <cstdint>

namespace tae::kernels {
namespace {

// Bytes between the place of a loop and the line that is fetched there. The CPU's own prefetchers
// begin anew in every page, and ask late for lines to write.
constexpr int64_t kFetchAhead = 1024;

// Of `count` bytes those whole lines that have another so far ahead: past the end may lie what another
// thread writes.
[[gnu::always_inline]] inline int64_t lines_before_last(int64_t count) {
  return count > kFetchAhead ? (count - kFetchAhead) / 64 * 64 : 0;
}

[[gnu::always_inline]] inline void fetch_ahead(const uint8_t* p, int64_t bytes = kFetchAhead) {
  __builtin_prefetch(p + bytes);
}

// An instruction because the intrinsic needs a compiler flag; a no-op before Broadwell.
[[gnu::always_inline]] inline void fetch_ahead_to_write(uint8_t* p) {
  __asm__ volatile("prefetchw %0" : : "m"(p[kFetchAhead]));
}

}  // namespace
}  // namespace tae::kernels
