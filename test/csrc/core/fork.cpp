#include "core/fork.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "test/csrc/core/fork_testing.h"

using namespace tae;
using namespace tae::test;

namespace {

// Addresses that reach many of the mutexes.
std::vector<std::mutex*> all_mutexes() {
  std::vector<std::mutex*> found;
  for (uintptr_t at = 64; at < 64 * 4096; at += 64) {
    std::mutex* const m = &fork_safe_mutex(reinterpret_cast<const void*>(at));
    if (std::find(found.begin(), found.end(), m) == found.end()) found.push_back(m);
  }
  return found;
}

}  // namespace

TEST_CASE("fork: mutexes that other threads hold are free in the child") {
  const std::vector<std::mutex*> mutexes = all_mutexes();
  CHECK(mutexes.size() == 64);
  const Hammer hammer(2,
                      [&](int i) { const std::lock_guard<std::mutex> lock(*mutexes[i % mutexes.size()]); });
  for (int i = 0; i < 30; ++i) {
    const bool good = child_succeeds([&] {
      for (std::mutex* m : mutexes) const std::lock_guard<std::mutex> lock(*m);
      return true;
    });
    REQUIRE(good);
  }
}

TEST_CASE("fork: waits for the work of a library, a nested part of it included") {
  std::atomic<bool> inside{false};
  std::atomic<bool> done{false};
  std::thread worker([&] {
    const DelayFork outer;
    inside = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(30));  // the fork waits by now
    {
      const DelayFork nested;
      const std::lock_guard<std::mutex> lock(fork_safe_mutex(&inside));
    }
    done = true;
  });
  while (!inside) std::this_thread::yield();
  CHECK(child_succeeds([&] { return done.load(); }));
  worker.join();
}

TEST_CASE("fork: a child of a busy parent can work and fork itself") {
  const Hammer hammer(2, [](int) { const DelayFork delay; });
  for (int i = 0; i < 20; ++i) {
    const bool good = child_succeeds([] {
      {
        const DelayFork delay;
      }
      return child_succeeds([] {
        const DelayFork delay;
        return true;
      });
    });
    REQUIRE(good);
  }
}
