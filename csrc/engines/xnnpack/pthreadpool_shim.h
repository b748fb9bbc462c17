// What linear.cpp may tell the pthreadpool shim about the XNNPACK calls it is
// about to make on this thread.
#pragma once

#include <cstddef>

namespace tae::xnnpack {

struct PoolHint {
  // Run every task on the calling thread: the work is too small to share, or the
  // caller is itself one share of a parallel region.
  bool serial = false;
  // Non-zero: the thread count reported while XNNPACK cuts tiles. XNNPACK makes
  // about 5 tiles per reported thread, so this sets the tile size; it does not
  // change who runs them. Only for operators without per-thread workspace.
  size_t reported_threads = 0;
  // Run tasks in the floating-point environment that engines/linear.h assumes
  // (nearest even, denormals kept), whatever the caller's and the task's flags are.
  bool default_float_env = false;
};

// Applies a hint to the calling thread until the end of the scope.
class ScopedPoolHint {
 public:
  explicit ScopedPoolHint(const PoolHint& hint);
  ~ScopedPoolHint();
  ScopedPoolHint(const ScopedPoolHint&) = delete;
  ScopedPoolHint& operator=(const ScopedPoolHint&) = delete;

 private:
  PoolHint previous_;
};

}  // namespace tae::xnnpack
