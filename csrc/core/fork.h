// What fork() means for OpenMP (implemented beside the thread pool, in parallel.cpp)
// and for locks (fork.cpp): a child has only the thread that forked, and nobody in it
// would ever release what other threads held.
#pragma once

#include <cstdint>
#include <mutex>

namespace tae {

// Counts forks between the first process and this one. State that another thread
// was building at the fork will never be finished in the child.
uint64_t fork_generation();

// While it lives, torch and oneDNN run serially in a thread that lost its OpenMP
// workers in a fork (they would wait for them for ever). Elsewhere it does nothing.
class SerialAfterFork {
 public:
  SerialAfterFork();
  ~SerialAfterFork();
  SerialAfterFork(const SerialAfterFork&) = delete;
  SerialAfterFork& operator=(const SerialAfterFork&) = delete;

 private:
  int threads_before_ = 0;  // 0: nothing to restore
};

// One of the process's 64 mutexes that a fork takes all of, chosen by address: free in
// the child, whatever other threads were doing. For list operations: no second one and
// no DelayFork under it, no packing, no call into an engine.
std::mutex& fork_safe_mutex(const void* owner);

// While one lives, a fork in another thread waits. For calls into libraries that take
// locks of their own, such as oneDNN's code generation, and for what is initialised
// once; short work that forks nothing itself. May be nested.
class DelayFork {
 public:
  DelayFork();
  ~DelayFork();
  DelayFork(const DelayFork&) = delete;
  DelayFork& operator=(const DelayFork&) = delete;
};

}  // namespace tae
