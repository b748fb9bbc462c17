// What is kept of the memory of large results.
#include "core/large_memory.h"

#include <unistd.h>
#undef CHECK  // c10's
#include <catch2/catch_test_macros.hpp>
#include <fstream>

namespace {

constexpr int64_t kGigabyte = int64_t{1} << 30;

// Bytes of the process's address space.
int64_t mapped() {
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

void allocate_and_free(int64_t bytes) { tae::large_memory()->allocate(static_cast<size_t>(bytes)); }

}  // namespace

TEST_CASE("large memory: a block of up to 1 GB is kept until two others are", "[large_memory]") {
  const int64_t before = mapped();
  allocate_and_free(kGigabyte + 1);
  CHECK(mapped() < before + kGigabyte / 2);
  allocate_and_free(kGigabyte);
  CHECK(mapped() > before + kGigabyte / 2);
  {
    const c10::DataPtr first = tae::large_memory()->allocate(32 << 20);
    const c10::DataPtr second = tae::large_memory()->allocate(32 << 20);
  }
  CHECK(mapped() < before + kGigabyte / 2);
}
