// The switch of the library of mutants: a file that all processes of a test share, named by
// TAE_MUTANTS. Words of 32 bits: the deleted check (0: none), how many fired, and those.
#include "check_sites.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>

namespace tae::mutants {
namespace {

constexpr uint32_t kMostFired = 4096;  // as in fired_checks.py

struct Shared {
  std::atomic<uint32_t> deleted;
  std::atomic<uint32_t> count;
  std::atomic<uint32_t> fired[kMostFired];
};

Shared* shared() {
  static Shared* const mapped = [] {
    static Shared none{};
    const char* name = std::getenv("TAE_MUTANTS");
    const int file = name == nullptr ? -1 : open(name, O_RDWR | O_CLOEXEC);
    if (file < 0) return &none;
    void* at = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return at == MAP_FAILED ? &none : static_cast<Shared*>(at);
  }();
  return mapped;
}

thread_local int skipping = 0;

}  // namespace

bool chosen(uint32_t site) { return shared()->deleted.load(std::memory_order_relaxed) == site; }

bool skipped(uint32_t site) { return skipping > 0 || chosen(site); }

void left_out() {}

void skip_all(int change) { skipping += change; }

void fired(uint32_t site) {
  Shared* const s = shared();
  const uint32_t n = std::min(s->count.load(), kMostFired);
  for (uint32_t i = 0; i < n; ++i)
    if (s->fired[i].load() == site) return;
  const uint32_t at = s->count.fetch_add(1);
  if (at < kMostFired) s->fired[at].store(site);
}

}  // namespace tae::mutants
