// The operators of one weight. Each holds the state of one call; those that no call has wait here.
#pragma once

#include <xnnpack.h>

#include <cstddef>
#include <mutex>
#include <vector>

#include "core/fork.h"

namespace tae::xnnpack {

class OperatorPool {
 public:
  // Keeps at most so many that are idle.
  explicit OperatorPool(size_t most) : most_(most) {
    idle_.reserve(most);
  }  // so that give() does not allocate
  ~OperatorPool();
  OperatorPool(const OperatorPool&) = delete;
  OperatorPool& operator=(const OperatorPool&) = delete;

  // An idle one, or null.
  xnn_operator_t take();
  // Deletes it when enough are idle.
  void give(xnn_operator_t op);

 private:
  const size_t most_;
  std::mutex& mutex_ = fork_safe_mutex(this);
  std::vector<xnn_operator_t> idle_;
};

// An operator for the time of a call: an idle one, or what make() returns.
class OperatorLease {
 public:
  template <class Make>
  OperatorLease(OperatorPool& pool, const Make& make) : pool_(pool), op_(pool.take()) {
    if (op_ == nullptr) op_ = make();
  }
  ~OperatorLease() {
    if (broken_)
      xnn_delete_operator(op_);
    else
      pool_.give(op_);
  }
  OperatorLease(const OperatorLease&) = delete;
  OperatorLease& operator=(const OperatorLease&) = delete;

  xnn_operator_t op() const { return op_; }
  // Not to be used again: a reshape that failed has noted the new size all the same, and the
  // next one would take its buffers for those of that size.
  void discard() { broken_ = true; }

 private:
  OperatorPool& pool_;
  xnn_operator_t op_;
  bool broken_ = false;
};

// Throw unless an operator was made again, or did its work: std::bad_alloc, std::runtime_error.
void check_created(xnn_status status);
void check_ran(xnn_status status);

}  // namespace tae::xnnpack
