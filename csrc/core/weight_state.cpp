#include "core/weight_state.h"

#include <algorithm>
#include <atomic>
#include <iterator>
#include <mutex>
#include <typeinfo>

#include "core/env.h"
#include "core/fork.h"

namespace tae {
namespace {

// Locks: the slot of a TensorImpl and the states of a holder are guarded by a mutex
// chosen by address (core/fork.h), so that the usual call takes one lock. Nothing but
// list operations happens under it, and two are never held at once.

std::atomic<int64_t> total_packs{0};

struct Entry {
  explicit Entry(const StateQuery& query) : key(query), made_in(fork_generation()) {}
  const StateKey key;
  const uint64_t made_in;  // a latch that another thread held at a fork stays locked
  std::mutex latch;        // held while packing
  PackedStatePtr state;    // guarded by the holder's mutex; null until packed
};
using EntryPtr = std::shared_ptr<Entry>;
using Entries = std::vector<EntryPtr>;

// All is guarded by `mutex`. clone() of BackendMeta shares the holder, so aliases made
// by detach() find the same states.
class WeightStateHolder final : public c10::BackendMeta {
 public:
  explicit WeightStateHolder(const void* home) : mutex(fork_safe_mutex(home)) {}

  // A packed state; it moves to the front.
  PackedStatePtr find(const StateQuery& query) {
    for (int i = 0; i < count; ++i) {
      if (!states[i]->key.matches(query)) continue;
      const auto at = states.begin() + i;
      std::rotate(states.begin(), at, at + 1);
      return states[0]->state;
    }
    return nullptr;
  }

  // The packing in work for this query, or `fresh`, which then is it. What can never be
  // found again goes to `dropped`, to be destroyed after the lock.
  EntryPtr join(const StateQuery& query, const EntryPtr& fresh, Entries* dropped) {
    const auto dead = [&](const EntryPtr& e) {
      return e->key.superseded_by(query) || (e->state == nullptr && e->made_in != fork_generation());
    };
    const auto move_dead = [&](EntryPtr* begin, size_t size) {
      EntryPtr* const end = begin + size;
      EntryPtr* const kept = std::stable_partition(begin, end, [&](const EntryPtr& e) { return !dead(e); });
      std::move(kept, end, std::back_inserter(*dropped));
      return kept - begin;
    };
    count = static_cast<int>(move_dead(states.data(), count));
    in_work.resize(move_dead(in_work.data(), in_work.size()));
    for (const EntryPtr& e : in_work)
      if (e->key.matches(query)) return e;
    in_work.push_back(fresh);
    return fresh;
  }

  bool is_in_work(const EntryPtr& entry) const {
    return std::find(in_work.begin(), in_work.end(), entry) != in_work.end();
  }

  // The end of a packing: its state goes to the front, and only then the least recently
  // used one out. After a clear() there is nothing to end.
  void finish(const EntryPtr& entry, EntryPtr* dropped) {
    const auto at = std::find(in_work.begin(), in_work.end(), entry);
    if (at == in_work.end()) return;
    in_work.erase(at);
    if (entry->state == nullptr) return;
    if (count == kMaxStates) *dropped = std::move(states[--count]);
    states[count++] = entry;
    std::rotate(states.begin(), states.begin() + count - 1, states.begin() + count);
  }

  std::mutex& mutex;
  int64_t packs = 0;  // of this weight and of views of it
  int count = 0;
  std::array<EntryPtr, kMaxStates> states;  // packed, most recently used first
  Entries in_work;                          // being packed; a failed one leaves without a trace
};

// The holder in a tensor's slot; null when there is none. Mutex of the tensor held.
WeightStateHolder* installed(const at::Tensor& t) {
  c10::BackendMeta* meta = t.unsafeGetTensorImpl()->get_backend_meta();
  if (meta == nullptr || typeid(*meta) != typeid(WeightStateHolder)) return nullptr;
  return static_cast<WeightStateHolder*>(meta);
}

using HolderPtr = c10::intrusive_ptr<WeightStateHolder>;

HolderPtr holder_of(const at::Tensor& t, bool install) {
  at::TensorImpl* impl = t.unsafeGetTensorImpl();
  const std::lock_guard<std::mutex> lock(fork_safe_mutex(impl));
  if (WeightStateHolder* found = installed(t)) return HolderPtr::unsafe_reclaim_from_nonowning(found);
  if (!install) return {};
  TORCH_CHECK_NOT_IMPLEMENTED(impl->get_backend_meta() == nullptr,
                              "torch_ao: the weight carries the metadata of another backend");
  auto made = c10::make_intrusive<WeightStateHolder>(impl);
  impl->set_backend_meta(made);
  return made;
}

// A hit in one lock when the holder lives with this TensorImpl, which it does unless
// the tensor is a detach() alias.
PackedStatePtr find_packed(const StateQuery& query, const at::Tensor& weight) {
  std::mutex& own = fork_safe_mutex(weight.unsafeGetTensorImpl());
  HolderPtr elsewhere;
  {
    const std::lock_guard<std::mutex> lock(own);
    WeightStateHolder* holder = installed(weight);
    if (holder == nullptr) return nullptr;
    if (&holder->mutex == &own) return holder->find(query);
    elsewhere = HolderPtr::unsafe_reclaim_from_nonowning(holder);
  }
  const std::lock_guard<std::mutex> lock(elsewhere->mutex);
  return elsewhere->find(query);
}

void count_pack(const at::Tensor& weight) {
  const HolderPtr holder = holder_of(weight, /*install=*/true);
  const std::lock_guard<std::mutex> lock(holder->mutex);
  ++holder->packs;
}

// With the entry's latch held.
PackedStatePtr pack_entry(WeightStateHolder& holder, const EntryPtr& entry, const at::Tensor& weight,
                          c10::function_ref<PackedState()> pack) {
  PackedStatePtr state;
  EntryPtr dropped;  // destroyed after the lock
  try {
    state = std::make_shared<const PackedState>(pack());
  } catch (...) {
    const std::lock_guard<std::mutex> lock(holder.mutex);
    holder.finish(entry, &dropped);
    throw;
  }
  total_packs.fetch_add(1, std::memory_order_relaxed);
  count_pack(weight);
  // A view that is made anew for each call packs each time; its base remembers that.
  if (weight.is_view()) count_pack(at::Tensor(weight._base()));
  const std::lock_guard<std::mutex> lock(holder.mutex);
  entry->state = state;
  holder.finish(entry, &dropped);
  return state;
}

}  // namespace

PackedStatePtr find_or_pack(const StateQuery& query, c10::function_ref<PackedState()> pack) {
  const at::Tensor& weight = query.weight();
  if (PackedStatePtr hit = find_packed(query, weight)) return hit;
  TORCH_CHECK_VALUE(init_error().empty(), init_error());

  const HolderPtr holder = holder_of(weight, /*install=*/true);
  for (;;) {
    const EntryPtr fresh = std::make_shared<Entry>(query);
    EntryPtr entry;
    Entries dropped;
    {
      const std::lock_guard<std::mutex> lock(holder->mutex);
      if (PackedStatePtr hit = holder->find(query)) return hit;
      entry = holder->join(query, fresh, &dropped);
    }
    dropped.clear();  // a packing that is replaced need not live beside the new one
    const std::lock_guard<std::mutex> packing(entry->latch);
    {
      const std::lock_guard<std::mutex> lock(holder->mutex);
      if (entry->state != nullptr) return entry->state;
      if (!holder->is_in_work(entry)) continue;  // the thread that packed it failed
    }
    return pack_entry(*holder, entry, weight, pack);
  }
}

std::vector<StateReport> states_of(const at::Tensor& weight) {
  std::vector<StateReport> reports;
  const HolderPtr holder = holder_of(weight, /*install=*/false);
  if (!holder) return reports;
  const std::lock_guard<std::mutex> lock(holder->mutex);
  for (int i = 0; i < holder->count; ++i)
    reports.push_back({holder->states[i]->key.query.op(), holder->states[i]->state});
  return reports;
}

void clear_states(const at::Tensor& weight) {
  const HolderPtr holder = holder_of(weight, /*install=*/false);
  if (!holder) return;
  std::array<EntryPtr, kMaxStates> dropped;  // destroyed after the lock
  Entries in_work;
  const std::lock_guard<std::mutex> lock(holder->mutex);
  dropped.swap(holder->states);
  in_work.swap(holder->in_work);
  holder->count = 0;
}

int64_t pack_count() { return total_packs.load(std::memory_order_relaxed); }

int64_t pack_count(const at::Tensor& weight) {
  const HolderPtr holder = holder_of(weight, /*install=*/false);
  if (!holder) return 0;
  const std::lock_guard<std::mutex> lock(holder->mutex);
  return holder->packs;
}

}  // namespace tae
