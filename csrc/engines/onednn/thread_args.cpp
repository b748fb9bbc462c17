#include "engines/onednn/thread_args.h"

#include <pthread.h>

#include <array>
#include <atomic>
#include <memory>
#include <new>

#include "engines/onednn/runtime.h"

namespace tae::onednn {
namespace {

struct Stream {
  dnnl_stream_t handle = nullptr;
  ~Stream() { dnnl_stream_destroy(handle); }
};

struct Slot {
  uint64_t id = 0;
  std::vector<dnnl_exec_arg_t> args;

  ~Slot() { clear(); }
  void clear() {
    for (dnnl_exec_arg_t& a : args) dnnl_memory_destroy(a.memory);
    args.clear();
    id = 0;
  }
  void fill(uint64_t primitive, const ArgumentDesc* wanted, size_t count) {
    clear();
    args.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      dnnl_memory_t memory = nullptr;
      check(dnnl_memory_create(&memory, wanted[i].desc, engine_handle(), DNNL_MEMORY_NONE),
            "dnnl_memory_create");
      args.push_back({wanted[i].arg, memory});
    }
    id = primitive;
  }
};

// Behind a key and no thread_local with a destructor: glibc ends the process when it has no
// memory to register one.
struct ThreadData {
  // Direct-mapped: ids count up, so the primitives of one model do not collide before 128.
  std::array<Slot, 128> slots;
  Stream stream;

  static ThreadData& get() {
    if (mine != nullptr) return *mine;
    static const pthread_key_t key = make_key();
    auto made = std::make_unique<ThreadData>();
    if (pthread_setspecific(key, made.get()) != 0) throw std::bad_alloc();
    mine = made.release();
    return *mine;
  }

 private:
  static pthread_key_t make_key() {
    pthread_key_t key;
    const auto at_exit = [](void* data) {
      mine = nullptr;
      delete static_cast<ThreadData*>(data);
    };
    if (pthread_key_create(&key, at_exit) != 0) throw std::bad_alloc();
    return key;
  }

  static thread_local ThreadData* mine;
};

thread_local ThreadData* ThreadData::mine = nullptr;

std::atomic<uint64_t> next_id{1};

}  // namespace

uint64_t next_primitive_id() { return next_id.fetch_add(1); }

dnnl_stream* thread_stream() {
  Stream& stream = ThreadData::get().stream;
  if (stream.handle == nullptr)
    check(dnnl_stream_create(&stream.handle, engine_handle(), dnnl_stream_default_flags),
          "dnnl_stream_create");
  return stream.handle;
}

const std::vector<dnnl_exec_arg_t>& thread_args(uint64_t id, const ArgumentDesc* wanted, size_t count) {
  auto& slots = ThreadData::get().slots;
  Slot& slot = slots[id % slots.size()];
  if (slot.id != id) slot.fill(id, wanted, count);
  return slot.args;
}

}  // namespace tae::onednn
