#include "engines/native/scratch.h"

#include <cstdlib>
#include <new>

namespace tae::native {
namespace {

// A block above this size goes back to the system after the call.
constexpr int64_t kKeepBytes = int64_t{64} << 20;

uint8_t* allocate(int64_t bytes) {
  void* p = nullptr;
  if (posix_memalign(&p, 64, static_cast<size_t>(bytes)) != 0) throw std::bad_alloc();
  return static_cast<uint8_t*>(p);
}

struct Block {
  uint8_t* data = nullptr;
  int64_t bytes = 0;
  bool busy = false;

  ~Block() { std::free(data); }

  void grow(int64_t wanted) {
    if (wanted <= bytes) return;
    // Rounded up, so that slowly growing batches do not allocate each time.
    const int64_t rounded = (wanted + wanted / 4 + 4095) / 4096 * 4096;
    std::free(data);
    data = nullptr;
    bytes = 0;
    data = allocate(rounded);
    bytes = rounded;
  }
};

// Two: the caller's own and, when a chunk of its parallel region runs on the
// calling thread, that chunk's.
constexpr int kSlots = 2;
thread_local Block t_blocks[kSlots];

}  // namespace

ScratchLease::ScratchLease(int64_t bytes) {
  for (int slot = 0; slot < kSlots; ++slot) {
    Block& block = t_blocks[slot];
    if (block.busy) continue;
    block.grow(bytes);
    block.busy = true;
    data_ = block.data;
    slot_ = slot;
    return;
  }
  data_ = allocate(bytes);
}

ScratchLease::~ScratchLease() {
  if (slot_ < 0) {
    std::free(data_);
    return;
  }
  Block& block = t_blocks[slot_];
  block.busy = false;
  if (block.bytes > kKeepBytes) {
    std::free(block.data);
    block.data = nullptr;
    block.bytes = 0;
  }
}

}  // namespace tae::native
