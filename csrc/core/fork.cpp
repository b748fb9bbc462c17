#include "core/fork.h"

#include <pthread.h>

namespace tae {
namespace {

constexpr int kNumShards = 64;
struct alignas(64) Shard {
  std::mutex mutex;
};
Shard shards[kNumShards];

// Held for reading by every DelayFork. Readers are preferred (glibc's default), so that
// a nested one does not wait for a fork that waits for the outer one.
pthread_rwlock_t library_work = PTHREAD_RWLOCK_INITIALIZER;

// The work may end in a shard's mutex, so it goes first.
void before_fork() {
  pthread_rwlock_wrlock(&library_work);
  for (Shard& s : shards) s.mutex.lock();
}

void in_parent() {
  for (Shard& s : shards) s.mutex.unlock();
  pthread_rwlock_unlock(&library_work);
}

void in_child() {
  for (Shard& s : shards) s.mutex.unlock();
  // Made anew: an unlock would hand it to readers of the parent that came meanwhile.
  library_work = PTHREAD_RWLOCK_INITIALIZER;
}

[[maybe_unused]] const int registered = pthread_atfork(before_fork, in_parent, in_child);

}  // namespace

std::mutex& fork_safe_mutex(const void* owner) {
  const uint64_t h = reinterpret_cast<uintptr_t>(owner) * 0x9e3779b97f4a7c15ull;
  return shards[h >> 58].mutex;
}

DelayFork::DelayFork() { pthread_rwlock_rdlock(&library_work); }
DelayFork::~DelayFork() { pthread_rwlock_unlock(&library_work); }

}  // namespace tae
