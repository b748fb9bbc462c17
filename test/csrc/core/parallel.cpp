#include "core/parallel.h"

#include "core/torch_api.h"
#undef CHECK  // c10's
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/fork.h"

using namespace tae;

namespace {

struct Threads {
  explicit Threads(int n) : before(at::get_num_threads()) { at::set_num_threads(n); }
  ~Threads() { at::set_num_threads(before); }
  int before;
};

// How often each index was visited.
std::vector<int> visits(int64_t count, int64_t grain) {
  std::vector<std::atomic<int>> seen(count);
  parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) seen[i].fetch_add(1);
  });
  return {seen.begin(), seen.end()};
}

}  // namespace

TEST_CASE("parallel: every index once, for any count, grain and thread count") {
  for (int threads : {1, 2, 3}) {
    const Threads set(threads);
    CHECK(num_threads() == threads);
    for (int64_t count : {0, 1, 2, 7, 64, 1000})
      for (int64_t grain : {0, 1, 3, 64, 5000}) CHECK(visits(count, grain) == std::vector<int>(count, 1));
  }
}

TEST_CASE("parallel: regions are really parallel, and serial inside one another") {
  const Threads set(2);
  std::atomic<int> inside{0};
  std::atomic<int> nested{0};
  parallel_for(2, 1, [&](int64_t, int64_t) {
    // Both threads must be here at once.
    inside.fetch_add(1);
    while (inside < 2) std::this_thread::yield();
    nested += num_threads();
    parallel_for(100, 1, [&](int64_t begin, int64_t end) { nested += begin == 0 && end == 100; });
  });
  CHECK(nested == 4);
}

TEST_CASE("parallel: a SerialRegion has one thread until its end") {
  const Threads threads(2);
  {
    const SerialRegion outer(true);
    const SerialRegion inner(false);
    CHECK(num_threads() == 1);
    int members = 0;
    run_team(2, [&](int, int count) { members += count; });
    CHECK(members == 1);
  }
  const SerialRegion none(false);
  CHECK(num_threads() == 2);
}

TEST_CASE("parallel: an exception leaves the region and the next one works") {
  const Threads set(2);
  CHECK_THROWS_AS(parallel_for(8, 1, [](int64_t, int64_t) { throw std::runtime_error("inside"); }),
                  std::runtime_error);
  CHECK(visits(100, 1) == std::vector<int>(100, 1));
}

TEST_CASE("parallel: a new thread obeys torch's setting") {
  const Threads set(2);
  int seen = 0;
  std::thread([&] { seen = num_threads(); }).join();
  CHECK(seen == 2);
}

TEST_CASE("parallel: a child of a process with OpenMP workers runs serially") {
  const Threads set(2);
  visits(100, 1);  // starts libgomp's worker
  const uint64_t generation = fork_generation();
  const pid_t child = fork();
  if (child == 0) {
    alarm(10);
    bool good = fork_generation() == generation + 1 && num_threads() == 1;
    good = good && visits(1000, 1) == std::vector<int>(1000, 1);
    {
      SerialAfterFork serial;
      good = good && at::get_num_threads() == 1;
    }
    good = good && at::get_num_threads() == 2;
    // A thread of the child's own has lost nothing.
    std::thread([&] {
      good = good && num_threads() == 2 && visits(100, 1) == std::vector<int>(100, 1);
    }).join();
    _exit(good ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(num_threads() == 2);
}
