// What fork() means for OpenMP. Implemented beside the thread pool, in parallel.cpp.
#pragma once

#include <cstdint>

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

}  // namespace tae
