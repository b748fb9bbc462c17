#include "core/result_memory.h"

namespace tae {
namespace {

thread_local c10::Allocator* current = nullptr;

// A result that grows later does so after `current` is gone.
at::Tensor grows_anywhere(at::Tensor t) {
  t.storage().unsafeGetStorageImpl()->set_allocator(cpu_allocator());
  return t;
}

}  // namespace

at::Tensor new_tensor(at::IntArrayRef sizes, at::ScalarType dtype) {
  if (current == nullptr) return at::detail::empty_cpu(sizes, dtype);
  return grows_anywhere(at::detail::empty_generic(sizes, current, c10::DispatchKeySet(c10::DispatchKey::CPU),
                                                  dtype, std::nullopt));
}

at::Tensor new_tensor(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype) {
  if (current == nullptr) return at::detail::empty_strided_cpu(sizes, strides, dtype);
  return grows_anywhere(at::detail::empty_strided_generic(sizes, strides, current,
                                                          c10::DispatchKeySet(c10::DispatchKey::CPU), dtype));
}

ResultAllocator::ResultAllocator(c10::Allocator* allocator) : before_(current) { current = allocator; }
ResultAllocator::~ResultAllocator() { current = before_; }

}  // namespace tae
