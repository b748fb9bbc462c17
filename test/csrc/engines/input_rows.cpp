// Working memory of a thread.
#include "engines/input_rows.h"

#undef CHECK  // c10's
#include <catch2/catch_test_macros.hpp>

#include "core/poison.h"

namespace {

using tae::ScratchMemory;

bool apart(const uint8_t* a, const uint8_t* b, int64_t bytes) { return a + bytes <= b || b + bytes <= a; }

TEST_CASE("scratch memory: leases nest, and a thread's is kept", "[scratch_memory]") {
  const ScratchMemory first(1000);
  uint8_t* kept = nullptr;
  {
    const ScratchMemory second(1000), third(1000);  // a third lease has memory of its own
    CHECK(apart(first.data(), second.data(), 1000));
    CHECK(apart(first.data(), third.data(), 1000));
    CHECK(apart(second.data(), third.data(), 1000));
    for (const ScratchMemory* m : {&first, &second, &third})
      CHECK(reinterpret_cast<uintptr_t>(m->data()) % 64 == 0);
    kept = second.data();
  }
  CHECK(ScratchMemory(900).data() == kept);
}

#ifdef TAE_POISONS
TEST_CASE("scratch memory: a lease ends where it was asked to", "[scratch_memory]") {
  const uint8_t* data = nullptr;
  {
    const ScratchMemory m(100);
    data = m.data();
    CHECK(__asan_region_is_poisoned(m.data(), 100) == nullptr);
    CHECK(__asan_region_is_poisoned(m.data(), 101) != nullptr);
  }
  CHECK(__asan_address_is_poisoned(data));
}
#endif

}  // namespace
