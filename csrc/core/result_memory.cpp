#include "core/result_memory.h"

#include "core/huge_pages.h"

namespace tae {
namespace {

// From here on malloc maps each block anew (glibc's largest M_MMAP_THRESHOLD), and a first write
// to every 4 KB of it costs more than the operators that fill it.
constexpr size_t kMappedBytes = size_t{32} << 20;

// Asks for huge pages; a kernel without them says no, which is fine.
at::Tensor in_huge_pages(at::Tensor t) {
  const c10::Storage& memory = t.storage();
  if (memory.nbytes() >= kMappedBytes)
    with_huge_pages(memory.data(), memory.nbytes(),
                    [](void* first, size_t bytes) { madvise(first, bytes, MADV_HUGEPAGE); });
  return t;
}

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

}  // namespace

at::Tensor new_tensor(at::IntArrayRef sizes, at::ScalarType dtype) {
  if (current == nullptr) return in_huge_pages(at::detail::empty_cpu(sizes, dtype));
  return grows_anywhere(at::detail::empty_generic(sizes, current, c10::DispatchKeySet(c10::DispatchKey::CPU),
                                                  dtype, std::nullopt));
}

at::Tensor new_tensor(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype) {
  if (current == nullptr) return in_huge_pages(at::detail::empty_strided_cpu(sizes, strides, dtype));
  return grows_anywhere(at::detail::empty_strided_generic(sizes, strides, current,
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
