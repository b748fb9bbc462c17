#include "engines/xnnpack/operator_pool.h"

#include <new>
#include <stdexcept>
#include <string>

#include "engines/xnnpack/xnnpack.h"

namespace tae::xnnpack {

OperatorPool::~OperatorPool() {
  for (xnn_operator_t op : idle_) xnn_delete_operator(op);
}

xnn_operator_t OperatorPool::take() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (idle_.empty()) return nullptr;
  const xnn_operator_t op = idle_.back();
  idle_.pop_back();
  return op;
}

void OperatorPool::give(xnn_operator_t op) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (idle_.size() < most_) {
      idle_.push_back(op);
      return;
    }
  }
  xnn_delete_operator(op);
}

namespace {

void check(const char* step, xnn_status status) {
  if (status == xnn_status_out_of_memory) throw std::bad_alloc();
  if (status != xnn_status_success)
    throw std::runtime_error(std::string("torch_ao_ext: XNNPACK ") + step + ": " + status_name(status));
}

}  // namespace

void check_created(xnn_status status) { check("operator", status); }
void check_ran(xnn_status status) { check("run", status); }

}  // namespace tae::xnnpack
