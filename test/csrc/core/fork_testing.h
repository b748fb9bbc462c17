// Children that must not hang, and threads that keep a parent busy meanwhile.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace tae::test {

// Whether `check` holds in a child; false when it hangs there for 10 seconds.
inline bool child_succeeds(const std::function<bool()>& check) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(10);  // hung: killed by SIGALRM
    _exit(check() ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// Threads that call work(0), work(1), ... until the end of the scope.
class Hammer {
 public:
  Hammer(int threads, std::function<void(int)> work) {
    for (int t = 0; t < threads; ++t)
      threads_.emplace_back([this, work] {
        for (int i = 0; !stop_; ++i) work(i);
      });
  }
  ~Hammer() {
    stop_ = true;
    for (std::thread& t : threads_) t.join();
  }
  Hammer(const Hammer&) = delete;
  Hammer& operator=(const Hammer&) = delete;

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace tae::test
