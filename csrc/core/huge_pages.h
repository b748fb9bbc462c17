// Pages of 2 MB for large blocks of memory.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace tae {

// Calls body(first, bytes) with the whole huge pages inside [data, data + bytes), if there are any.
template <typename Body>
void with_huge_pages(const void* data, size_t bytes, const Body& body) {
  constexpr uintptr_t kHuge = uintptr_t{2} << 20;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + kHuge - 1) / kHuge * kHuge, last = (begin + bytes) / kHuge * kHuge;
  if (first < last) body(reinterpret_cast<void*>(first), last - first);
}

}  // namespace tae
