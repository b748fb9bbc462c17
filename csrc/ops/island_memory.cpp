#include "ops/island_memory.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/large_memory.h"
#include "core/poison.h"
#include "core/result_memory.h"

namespace tae {
namespace {

constexpr size_t kAlignment = 64;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool together(const Life& a, const Life& b) { return a.born < b.died && b.born < a.died; }

}  // namespace

// A result over another one shares its place: one life from the first birth to the last death. Largest
// first, each at the lowest offset where nothing lies that lives at the same time.
MemoryPlan plan_memory(const std::vector<Life>& given) {
  MemoryPlan plan;
  std::vector<Life> lives = given;
  std::vector<size_t> first(lives.size());  // of those that share a place
  std::iota(first.begin(), first.end(), 0);
  for (size_t i = 0; i < lives.size(); ++i) {
    plan.places.push_back({lives[i].bytes, -1, -1});
    const int64_t over = lives[i].over;
    if (over < 0 || lives[i].died < 0 || given[static_cast<size_t>(over)].died < 0) continue;
    plan.places[i].over = over;
    ++plan.in_place;
    first[i] = first[static_cast<size_t>(over)];
    Life& shared = lives[first[i]];
    shared.died = std::max(shared.died, lives[i].died);
  }
  std::vector<size_t> order(lives.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lives[a].bytes > lives[b].bytes; });
  std::vector<size_t> placed;  // by offset
  for (size_t i : order) {
    if (lives[i].died < 0 || lives[i].bytes == 0 || first[i] != i) continue;
    const int64_t size = static_cast<int64_t>(aligned(lives[i].bytes));
    int64_t offset = 0;
    for (size_t other : placed) {
      if (!together(lives[i], lives[other])) continue;
      const MemoryPlan::Place& place = plan.places[other];
      if (offset + size <= place.offset) break;
      offset = std::max(offset, place.offset + static_cast<int64_t>(aligned(place.bytes)));
    }
    plan.places[i].offset = offset;
    plan.block_bytes = std::max(plan.block_bytes, static_cast<size_t>(offset + size));
    const auto at = std::find_if(placed.begin(), placed.end(),
                                 [&](size_t other) { return plan.places[other].offset > offset; });
    placed.insert(at, i);
  }
  for (size_t i = 0; i < lives.size(); ++i) {
    plan.places[i].offset = plan.places[first[i]].offset;
    if (plan.places[i].offset >= 0) plan.separate_bytes += aligned(lives[i].bytes);
  }
  return plan;
}

// Shared by the allocator and all that it has handed out. Results may be freed by other
// threads, later.
struct RunMemory::State final : public c10::Allocator, std::enable_shared_from_this<State> {
  struct Handed {
    std::shared_ptr<State> owner;
    c10::DataPtr own;  // memory of its own; empty for a place in the block
    size_t index;
  };

  struct Used {
    int64_t from, to;
    size_t index;
  };

  explicit State(std::shared_ptr<const MemoryPlan> given) : plan(std::move(given)) {
    if (plan == nullptr || plan->block_bytes == 0) return;
    block = large_memory()->allocate(plan->block_bytes);
    poison(block.get(), plan->block_bytes);
  }

  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return large_memory()->allocate(0);
    if (plan == nullptr) return note(large_memory()->allocate(bytes), bytes);
    const std::lock_guard lock(mutex);
    const size_t index = next++;
    void* data = place(index, bytes);
    if (data == nullptr) return large_memory()->allocate(bytes);
    return hand_out(data, {}, index);
  }

  c10::DataPtr hand_out(void* data, c10::DataPtr own, size_t index) {
    auto* handed = new Handed{shared_from_this(), std::move(own), index};
    return {data, handed, &State::release, c10::Device(c10::DeviceType::CPU)};
  }

  // A result of a noting run.
  c10::DataPtr note(c10::DataPtr own, size_t bytes) {
    void* data = own.get();
    const std::lock_guard lock(mutex);
    int64_t over = -1;
    for (size_t i = 0; i < lives.size(); ++i)
      if (lives[i].died < 0 && lives[i].bytes == bytes && taken_over(starts[i]))
        over = static_cast<int64_t>(i);
    lives.push_back({bytes, clock++, -1, over});
    starts.push_back(data);
    return hand_out(data, std::move(own), lives.size() - 1);
  }

  // Whether a result of the operator that runs now may lie there: it allows it, nobody reads it later.
  bool taken_over(const void* start) const {
    return may_overwrite(start) && std::find(dying.begin(), dying.end(), start) != dying.end();
  }

  // The planned place of allocation `index`, null when there is none to use.
  void* place(size_t index, size_t bytes) {
    if (index >= plan->places.size() || plan->places[index].bytes != bytes) {
      strayed = true;
      return nullptr;
    }
    const int64_t offset = plan->places[index].offset;
    if (offset < 0) return nullptr;
    const int64_t end = offset + static_cast<int64_t>(aligned(bytes));
    void* const start = static_cast<char*>(block.get()) + offset;
    for (const auto& [from, to, user] : used) {
      if (from >= end || offset >= to) continue;
      if (static_cast<int64_t>(user) == plan->places[index].over && taken_over(start)) continue;
      strayed = true;
      return nullptr;
    }
    used.push_back({offset, end, index});
    unpoison(start, bytes);
    return start;
  }

  static void release(void* context) {
    const std::unique_ptr<Handed> handed(static_cast<Handed*>(context));
    State& s = *handed->owner;
    const std::lock_guard lock(s.mutex);
    if (s.plan == nullptr) {
      if (s.running) s.lives[handed->index].died = s.clock++;
      return;
    }
    const auto dead =
        std::find_if(s.used.begin(), s.used.end(), [&](const Used& u) { return u.index == handed->index; });
    poison(s.start_of(*dead), static_cast<size_t>(dead->to - dead->from));
    s.used.erase(dead);
    for (const Used& u : s.used) unpoison(s.start_of(u), s.plan->places[u.index].bytes);  // perhaps there
    s.free_block();
  }

  const char* start_of(const Used& u) const { return static_cast<const char*>(block.get()) + u.from; }

  // Results that leave the island have memory of their own and must not hold the block.
  void free_block() {
    if (!running && used.empty()) block.clear();
  }

  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* dest, const void* src, size_t count) const override { std::memcpy(dest, src, count); }

  const std::shared_ptr<const MemoryPlan> plan;
  c10::DataPtr block;
  std::mutex mutex;
  size_t next = 0;
  bool running = true;
  bool strayed = false;
  int64_t clock = 0;
  std::vector<Life> lives;
  std::vector<const void*> starts;  // of lives
  c10::SmallVector<const void*, 4> dying;
  std::vector<Used> used;
};

RunMemory::RunMemory(std::shared_ptr<const MemoryPlan> plan)
    : state_(std::make_shared<State>(std::move(plan))) {}

RunMemory::~RunMemory() {
  const std::lock_guard lock(state_->mutex);
  state_->running = false;
  state_->free_block();
}

c10::Allocator* RunMemory::allocator() { return state_.get(); }

bool RunMemory::asks_for_dying() const { return state_->plan == nullptr || state_->plan->in_place > 0; }

void RunMemory::set_dying(c10::SmallVector<const void*, 4> starts) {
  const std::lock_guard lock(state_->mutex);
  state_->dying = std::move(starts);
}

MemoryPlan RunMemory::noted() const {
  const std::lock_guard lock(state_->mutex);
  return plan_memory(state_->lives);
}

bool RunMemory::followed() const {
  const std::lock_guard lock(state_->mutex);
  return !state_->strayed && state_->next == state_->plan->places.size();
}

}  // namespace tae
