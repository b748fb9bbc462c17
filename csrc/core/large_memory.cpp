#include "core/large_memory.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <mutex>

#include "core/fork.h"
#include "core/huge_pages.h"
#include "core/poison.h"

namespace tae {
namespace {

constexpr size_t kLeastKept = size_t{1} << 20;  // bytes of a block

// glibc's largest M_MMAP_THRESHOLD.
constexpr size_t kMapped = size_t{32} << 20;

// Blocks that are kept of each kind: of a chain of operators one result dies while the next one is made.
constexpr size_t kBlocks = 2;
constexpr size_t kMostKept = size_t{1} << 30;  // bytes of one

class LargeMemory final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes < kLeastKept) return get(bytes);
    auto block = std::make_unique<Block>();
    block->owner = this;
    if (!take(bytes, block.get())) make(bytes, block.get());
    void* data = block->memory.get();
    return {data, block.release(), &LargeMemory::release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* dest, const void* src, size_t count) const override { std::memcpy(dest, src, count); }

 private:
  struct Block {
    LargeMemory* owner = nullptr;
    c10::DataPtr memory;
    size_t bytes = 0;
  };

  static c10::Allocator* torchs() { return c10::GetAllocator(c10::DeviceType::CPU); }

  // Newest first, which may still be in a cache.
  using Kept = std::array<Block, kBlocks>;

  Kept& kept(size_t bytes) { return bytes < kMapped ? small_ : large_; }

  // A kept block of that many bytes, or up to a quarter more.
  bool take(size_t bytes, Block* to) {
    const std::lock_guard lock(fork_safe_mutex(this));
    for (Block& b : kept(bytes)) {
      if (!b.memory || b.bytes < bytes || b.bytes - bytes > bytes / 4) continue;
      to->memory = std::exchange(b.memory, {});
      to->bytes = b.bytes;
      unpoison(to->memory.get(), bytes);
      return true;
    }
    return false;
  }

  // From torch, without what is kept if need be.
  c10::DataPtr get(size_t bytes) {
    try {
      return torchs()->allocate(bytes);
    } catch (...) {
      if (!give_up()) throw;
    }
    return torchs()->allocate(bytes);
  }

  void make(size_t bytes, Block* to) {
    to->memory = get(bytes);
    to->bytes = bytes;
    if (bytes < kMapped) return;
    // A kernel without them says no, which is fine.
    with_huge_pages(to->memory.get(), bytes,
                    [](void* first, size_t length) { madvise(first, length, MADV_HUGEPAGE); });
  }

  // Frees what is kept; whether that was anything.
  bool give_up() {
    Kept freed[2];  // behind the lock
    const std::lock_guard lock(fork_safe_mutex(this));
    std::swap(freed[0], small_);
    std::swap(freed[1], large_);
    bool any = false;
    for (const Kept& kept : freed)
      for (const Block& b : kept) any |= static_cast<bool>(b.memory);
    return any;
  }

  static void release(void* context) {
    const std::unique_ptr<Block> block(static_cast<Block*>(context));
    if (block->bytes > kMostKept) return;
    if (block->bytes >= kMapped)
      with_huge_pages(block->memory.get(), block->bytes,
                      [](void* first, size_t length) { madvise(first, length, MADV_FREE); });
    poison(block->memory.get(), block->bytes);
    block->owner->keep(block.get());
  }

  // In place of the one that was kept first.
  void keep(Block* block) {
    const std::lock_guard lock(fork_safe_mutex(this));
    Kept& blocks = kept(block->bytes);
    std::rotate(blocks.begin(), blocks.end() - 1, blocks.end());
    std::swap(blocks[0].memory, block->memory);
    std::swap(blocks[0].bytes, block->bytes);
  }

  Kept small_, large_;
};

// Made at load: a fork while another thread made it at first use would leave the child waiting for that.
LargeMemory* const memory = new LargeMemory;

}  // namespace

c10::Allocator* large_memory() { return memory; }

}  // namespace tae
