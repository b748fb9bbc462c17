#include "core/weight_state.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>
#include <mutex>
#include <typeinfo>

#include "core/checks.h"
#include "core/env.h"
#include "core/fork.h"

namespace tae {
namespace {

// VariableVersion hides its counter; its address is the whole of its contents.
static_assert(sizeof(c10::VariableVersion) == sizeof(void*));
const void* address_of_counter(const c10::VariableVersion& version) {
  const void* address;
  std::memcpy(&address, static_cast<const void*>(&version), sizeof address);
  return address;
}

TensorIdentity identity_of(const at::Tensor& t) {
  const at::TensorImpl* impl = t.unsafeGetTensorImpl();
  TensorIdentity id;
  const c10::StorageImpl* storage = t.storage().unsafeGetStorageImpl();
  id.storage = storage;
  id.data = storage->data();
  id.offset = impl->storage_offset();
  const c10::VariableVersion& version = impl->version_counter();
  if (version.enabled()) {
    id.version_counter = address_of_counter(version);
    id.version = version.current_version();
  }
  const at::IntArrayRef sizes = impl->sizes();
  const at::IntArrayRef strides = impl->strides();
  TORCH_INTERNAL_ASSERT(sizes.size() <= kMaxStateRank);
  id.rank = static_cast<int32_t>(sizes.size());
  for (int d = 0; d < id.rank; ++d) {
    id.sizes[d] = sizes[d];
    id.strides[d] = strides[d];
  }
  return id;
}

// FNV-1a over 8-byte words: finds any single changed word, which is what it is for.
uint64_t mix(uint64_t digest, uint64_t word) { return (digest ^ word) * 0x100000001b3ull; }

uint64_t digest_of(const at::Tensor& t, uint64_t digest) {
  const at::Tensor plain = dense({"_check_weights", "weight"}, t);
  if (plain.numel() == 0) return digest;
  const Span<const uint8_t> bytes = bytes_of({"_check_weights", "weight"}, plain);
  int64_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.begin() + i, 8);
    digest = mix(digest, word);
  }
  for (; i < bytes.size(); ++i) digest = mix(digest, bytes[i]);
  return digest;
}

// Locks: the slot of a TensorImpl and the states of a holder are guarded by a mutex
// chosen by address (core/fork.h), so that the usual call takes one lock. Nothing but
// list operations happens under it, and two are never held at once.

std::atomic<int64_t> total_packs{0};

}  // namespace

bool operator==(const TensorIdentity& a, const TensorIdentity& b) {
  if (a.storage != b.storage || a.data != b.data || a.version_counter != b.version_counter ||
      a.offset != b.offset || a.version != b.version || a.rank != b.rank)
    return false;
  for (int d = 0; d < a.rank; ++d)
    if (a.sizes[d] != b.sizes[d] || a.strides[d] != b.strides[d]) return false;
  return true;
}

StateQuery::StateQuery(const char* op, const at::Tensor& weight)
    : op_(op), generation_(settings().generation.load(std::memory_order_relaxed)) {
  add(weight);
}

void StateQuery::add(const at::Tensor& t) {
  TORCH_INTERNAL_ASSERT(num_tensors_ < kMaxStateTensors);
  tensors_[num_tensors_] = &t;
  identities_[num_tensors_++] = identity_of(t);
  if (settings().check_weights.load(std::memory_order_relaxed)) digest_ = digest_of(t, digest_);
}

void StateQuery::add_absent() {
  TORCH_INTERNAL_ASSERT(num_tensors_ < kMaxStateTensors);
  tensors_[num_tensors_] = nullptr;
  identities_[num_tensors_++] = TensorIdentity{};
}

void StateQuery::add(int64_t fact) {
  TORCH_INTERNAL_ASSERT(num_facts_ < kMaxStateFacts);
  facts_[num_facts_++] = fact;
}

// A query made to last: owned strings, and references that keep each address in it
// from being given to another storage or version counter. There is no hash: a holder
// has at most four keys, and comparing one costs less than hashing it.
struct StateKey {
  explicit StateKey(const StateQuery& q)
      : query(q), post_ops(q.post_ops_), post_op_args(q.post_op_args_.vec()) {
    for (int i = 0; i < q.num_tensors_; ++i) {
      if (q.tensors_[i] == nullptr) continue;
      storages.push_back(q.tensors_[i]->storage().getWeakStorageImpl());
      counters.push_back(q.tensors_[i]->unsafeGetTensorImpl()->version_counter());
      query.tensors_[i] = nullptr;  // the caller's; identities_ is what counts
    }
    query.post_ops_ = post_ops;
    query.post_op_args_ = post_op_args;
  }
  StateKey(const StateKey&) = delete;

  bool matches(const StateQuery& q) const {
    const StateQuery& own = query;
    if (own.num_tensors_ != q.num_tensors_ || own.num_facts_ != q.num_facts_ ||
        own.generation_ != q.generation_ || own.digest_ != q.digest_)
      return false;
    for (int i = 0; i < q.num_tensors_; ++i)
      if (!(own.identities_[i] == q.identities_[i])) return false;
    return std::memcmp(own.facts_.data(), q.facts_.data(), q.num_facts_ * sizeof(int64_t)) == 0 &&
           own.post_ops_ == q.post_ops_ && own.post_op_args_.equals(q.post_op_args_) &&
           (own.op_ == q.op_ || std::strcmp(own.op_, q.op_) == 0);
  }

  // True when no later query can match: a version counter only counts up, and so does
  // the generation of the settings.
  bool superseded_by(const StateQuery& q) const {
    if (query.generation_ < q.generation_) return true;
    for (int i = 0; i < std::min(query.num_tensors_, q.num_tensors_); ++i) {
      const TensorIdentity& a = query.identities_[i];
      const TensorIdentity& b = q.identities_[i];
      if (a.version_counter != nullptr && a.version_counter == b.version_counter && a.version != b.version)
        return true;
    }
    return false;
  }

  StateQuery query;
  std::string post_ops;
  std::vector<double> post_op_args;
  c10::SmallVector<c10::weak_intrusive_ptr<c10::StorageImpl>, 4> storages;
  c10::SmallVector<c10::VariableVersion, 4> counters;
};

namespace {

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
  const at::Tensor& weight = *query.tensors_[0];
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
