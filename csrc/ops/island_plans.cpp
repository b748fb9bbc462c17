#include <algorithm>

#include "core/fork.h"
#include "ops/island_memory.h"

namespace tae {
namespace {

constexpr size_t kMostPlans = 8;
constexpr int kMostDropped = 3;

}  // namespace

MemoryPlans::Key MemoryPlans::key_of(at::TensorList inputs) {
  Key key;
  for (const at::Tensor& t : inputs) {
    key.push_back(static_cast<int64_t>(t.scalar_type()));
    key.push_back(t.dim());
    key.append(t.sizes().begin(), t.sizes().end());
    key.append(t.strides().begin(), t.strides().end());
  }
  return key;
}

// Under the mutex.
MemoryPlans::Entry& MemoryPlans::entry(const Key& key) {
  for (Entry& e : entries_)
    if (e.key == key) return e;
  if (entries_.size() == kMostPlans) entries_.erase(entries_.begin());
  entries_.push_back({key, nullptr, 0});
  return entries_.back();
}

MemoryPlans::Choice MemoryPlans::choose(const Key& key) {
  const std::lock_guard lock(fork_safe_mutex(this));
  const Entry& e = entry(key);
  return {e.dropped >= kMostDropped, e.plan};
}

void MemoryPlans::keep(const Key& key, MemoryPlan plan) {
  auto kept = std::make_shared<const MemoryPlan>(std::move(plan));
  const std::lock_guard lock(fork_safe_mutex(this));
  entry(key).plan = std::move(kept);
}

void MemoryPlans::drop(const Key& key) {
  const std::lock_guard lock(fork_safe_mutex(this));
  Entry& e = entry(key);
  e.plan = nullptr;
  ++e.dropped;
}

std::vector<std::shared_ptr<const MemoryPlan>> MemoryPlans::all() const {
  const std::lock_guard lock(fork_safe_mutex(this));
  std::vector<std::shared_ptr<const MemoryPlan>> plans;
  for (const Entry& e : entries_)
    if (e.plan != nullptr) plans.push_back(e.plan);
  return plans;
}

}  // namespace tae
