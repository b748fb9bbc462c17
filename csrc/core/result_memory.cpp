#include "core/result_memory.h"

#include "core/large_memory.h"

namespace tae {
namespace {

thread_local c10::Allocator* current = nullptr;
thread_local const void* overwritten[2] = {};

// Start of a tensor's memory, null where the tensor begins behind it.
const void* start_of(const at::Tensor& t) {
  return t.defined() && t.storage_offset() == 0 ? t.storage().data() : nullptr;
}

// A result that grows later does so after `current` is gone.
at::Tensor grows_anywhere(at::Tensor t) {
  t.storage().unsafeGetStorageImpl()->set_allocator(cpu_allocator());
  return t;
}

c10::Allocator* allocator() { return current != nullptr ? current : large_memory(); }

}  // namespace

at::Tensor new_tensor(at::IntArrayRef sizes, at::ScalarType dtype) {
  return grows_anywhere(at::detail::empty_generic(
      sizes, allocator(), c10::DispatchKeySet(c10::DispatchKey::CPU), dtype, std::nullopt));
}

at::Tensor new_tensor(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype) {
  return grows_anywhere(at::detail::empty_strided_generic(sizes, strides, allocator(),
                                                          c10::DispatchKeySet(c10::DispatchKey::CPU), dtype));
}

ResultAllocator::ResultAllocator(c10::Allocator* allocator) : before_(current) { current = allocator; }
ResultAllocator::~ResultAllocator() { current = before_; }

MayOverwrite::MayOverwrite(const at::Tensor& a, const at::Tensor& b) {
  if (current == nullptr) return;
  overwritten[0] = start_of(a);
  overwritten[1] = start_of(b);
}
MayOverwrite::~MayOverwrite() { overwritten[0] = overwritten[1] = nullptr; }

bool may_overwrite(const void* data) {
  return data != nullptr && (data == overwritten[0] || data == overwritten[1]);
}

}  // namespace tae
