// Memory of the tensors that operators make: large_memory(), or another allocator's while a
// scope of this thread asks for it (an island plans where its intermediate results lie).
#pragma once

#include "core/torch_api.h"

namespace tae {

// Not initialized; std::bad_alloc or c10::Error when there is no memory (see allocate()).
at::Tensor new_tensor(at::IntArrayRef sizes, at::ScalarType dtype);  // contiguous
at::Tensor new_tensor(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype);

// torch's own.
inline c10::Allocator* cpu_allocator() { return c10::GetAllocator(c10::DeviceType::CPU); }

// While it lives, new_tensor of this thread takes memory from `allocator`, which outlives it;
// not from the allocator of an outer scope.
class ResultAllocator {
 public:
  explicit ResultAllocator(c10::Allocator* allocator);
  ~ResultAllocator();
  ResultAllocator(const ResultAllocator&) = delete;
  ResultAllocator& operator=(const ResultAllocator&) = delete;

 private:
  c10::Allocator* before_;
};

// While it lives, results that this thread makes may take over the memory of `a` or `b`: the operator
// reads every place of them before it writes there, and reads nothing else in that memory. Whether they
// do is the allocator's choice, which knows who else reads them.
class MayOverwrite {
 public:
  explicit MayOverwrite(const at::Tensor& a, const at::Tensor& b = at::Tensor());
  ~MayOverwrite();
  MayOverwrite(const MayOverwrite&) = delete;
  MayOverwrite& operator=(const MayOverwrite&) = delete;
};
// Whether the operator on this thread allows it; `data` is the start of a tensor's memory.
bool may_overwrite(const void* data);

}  // namespace tae
