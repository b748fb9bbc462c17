// Memory of large tensors, kept when they die and handed out again; the largest in huge pages.
#pragma once

#include "core/torch_api.h"

namespace tae {

// torch's CPU allocator below 1 MB. From 32 MB on malloc would map each block anew, and the first write to
// its pages costs as much as an operator that fills them; below, its aligned blocks take turns between
// several places, and what could be written into a cache goes to memory. The last two blocks of either kind
// that died, of 1 GB each at most, are kept instead, and the last one is handed out first. The kernel takes
// the pages of the large ones back when it needs memory (MADV_FREE), and all are given up when an allocation
// by this allocator fails, of any size. One that fails elsewhere, as for a tensor of torch's, does not reach
// them. Never destroyed: memory of it may outlive main().
c10::Allocator* large_memory();

}  // namespace tae
