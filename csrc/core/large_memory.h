// Memory of large tensors in huge pages, kept when they die and handed out again.
#pragma once

#include "core/torch_api.h"

namespace tae {

// torch's CPU allocator below 32 MB. From there on malloc would map each block anew, and the first write to
// its pages costs as much as an operator that fills them. The last two blocks that died, of 1 GB each at
// most, are kept instead; the kernel takes their pages back when it needs memory (MADV_FREE), and they are
// given up when an allocation by this allocator fails, of any size. One that fails elsewhere, as for a
// tensor of torch's, does not reach them. Never destroyed: memory of it may outlive main().
c10::Allocator* large_memory();

}  // namespace tae
