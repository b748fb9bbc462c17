#include "core/state_key.h"

#include <algorithm>
#include <cstring>

#include "core/checks.h"
#include "core/env.h"

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

StateKey::StateKey(const StateQuery& q)
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

bool StateKey::matches(const StateQuery& q) const {
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

bool StateKey::superseded_by(const StateQuery& q) const {
  if (query.generation_ < q.generation_) return true;
  for (int i = 0; i < std::min(query.num_tensors_, q.num_tensors_); ++i) {
    const TensorIdentity& a = query.identities_[i];
    const TensorIdentity& b = q.identities_[i];
    if (a.version_counter != nullptr && a.version_counter == b.version_counter && a.version != b.version)
      return true;
  }
  return false;
}

}  // namespace tae
