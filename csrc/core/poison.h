// Memory that is kept while nobody owns it: AddressSanitizer, which sees only what malloc gave, is told
// that its use is an error. Nothing in other builds.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define TAE_POISONS
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TAE_POISONS
#endif
#endif

#ifdef TAE_POISONS
#include <sanitizer/asan_interface.h>
#endif

namespace tae {

inline void poison([[maybe_unused]] const void* data, [[maybe_unused]] size_t bytes) {
#ifdef TAE_POISONS
  __asan_poison_memory_region(data, bytes);
#endif
}

inline void unpoison([[maybe_unused]] const void* data, [[maybe_unused]] size_t bytes) {
#ifdef TAE_POISONS
  __asan_unpoison_memory_region(data, bytes);
#endif
}

}  // namespace tae
