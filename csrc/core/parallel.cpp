// The torch side of core/parallel.h and core/fork.h.
#include "core/parallel.h"

#include <omp.h>
#include <pthread.h>
#include <sys/stat.h>

#include <atomic>

#include "core/fork.h"
#include "core/torch_api.h"

namespace tae {
namespace {

// fork() copies the calling thread only. libgomp in that thread still believes in
// its worker threads and waits for them for ever, so this thread stays serial in
// the child. New threads of the child start pools of their own and are not affected.
thread_local bool lost_workers = false;
thread_local bool serial = false;  // inside a SerialRegion
bool had_other_threads = false;    // written and read by the forking thread
std::atomic<uint64_t> generation{0};

// The child of a process with one thread (a server that loads its model and then
// forks) has lost nothing. st_nlink of /proc/self/task is 2 + number of threads.
void before_fork() {
  struct stat task;
  had_other_threads = stat("/proc/self/task", &task) != 0 || task.st_nlink != 3;
}

void in_child() {
  lost_workers = lost_workers || had_other_threads;
  generation.fetch_add(1, std::memory_order_relaxed);
}

[[maybe_unused]] const int registered = pthread_atfork(before_fork, nullptr, in_child);

}  // namespace

uint64_t fork_generation() { return generation.load(std::memory_order_relaxed); }

SerialAfterFork::SerialAfterFork() {
  if (!lost_workers) return;
  threads_before_ = omp_get_max_threads();
  omp_set_num_threads(1);
}

SerialAfterFork::~SerialAfterFork() {
  if (threads_before_ > 0) omp_set_num_threads(threads_before_);
}

SerialRegion::SerialRegion(bool on) : before_(serial) { serial = serial || on; }
SerialRegion::~SerialRegion() { serial = before_; }

int num_threads() {
  if (lost_workers || serial || at::in_parallel_region()) return 1;
  // A thread that never ran a torch op has OpenMP's default, not torch's setting.
  at::internal::lazy_init_num_threads();
  return at::get_num_threads();
}

int thread_index() { return at::get_thread_num(); }

void detail::parallel_for(int64_t count, int64_t grain, RangeFn fn, void* context) {
  if (count <= 0) return;
  if (grain < 1) grain = 1;
  if (count <= grain || num_threads() == 1) {
    fn(context, 0, count);
    return;
  }
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) { fn(context, begin, end); });
}

void detail::run_team(int most, MemberFn fn, void* context) {
  const int threads = num_threads();
  if (most > threads) most = threads;
  if (most <= 1) {
    fn(context, 0, 1);
    return;
  }
#pragma omp parallel num_threads(most)
  fn(context, omp_get_thread_num(), omp_get_num_threads());
}

void team_barrier() {
#pragma omp barrier
}

}  // namespace tae
