// What a thread keeps: a stream, and the memory objects of the primitives it has run.
#pragma once

#include <oneapi/dnnl/dnnl.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tae::onednn {

// For one primitive; never given again, unlike addresses.
uint64_t next_primitive_id();

struct ArgumentDesc {
  int arg;
  const dnnl_memory_desc* desc;
};

// The calling thread's memory objects of primitive `id`, in the order of `wanted`. Creating
// them costs as much as a small GEMM; their pointers are mutable, hence one set a thread.
// Valid until the thread asks for another primitive's.
const std::vector<dnnl_exec_arg_t>& thread_args(uint64_t id, const ArgumentDesc* wanted, size_t count);

}  // namespace tae::onednn
