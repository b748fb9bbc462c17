// Packed forms of a weight, reached through the weight's own TensorImpl, so that
// operators take plain tensors and pack once (design.md, decision 2).
//
// A holder is installed in TensorImpl's BackendMeta slot once and never replaced:
// core's detach() reads that slot without a lock. The holder keeps at most
// kMaxStates states, least recently used first out. A state is found by its key:
// the identity and version of the weight and of every tensor baked into the packing,
// and every number, dtype and flag that the packing depends on. All writes that torch
// tracks change the key. Writes it does not track (`.data`, `.numpy()`, inference
// tensors) are seen only with TORCH_AO_EXT_CHECK_WEIGHTS=1, which puts a digest of the
// bytes into the key and so reads every weight on every call: a tool for finding such
// writes, not for serving.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/torch_api.h"

namespace tae {

// What an op keeps of one packing: the engine's object and what explain shows.
struct PackedState {
  std::shared_ptr<const void> impl;  // of the type that the op named in the key uses
  std::string engine;
  std::string description;
  size_t packed_bytes = 0;
  std::vector<std::pair<std::string, std::string>> refused;  // engine, reason

  template <typename Impl>
  const Impl& as() const {
    return *static_cast<const Impl*>(impl.get());
  }
};
using PackedStatePtr = std::shared_ptr<const PackedState>;

constexpr int kMaxStates = 4;        // a weight, per TensorImpl
constexpr int kMaxStateTensors = 9;  // weight, scales, zero points, bias, ...
constexpr int kMaxStateFacts = 24;
constexpr int kMaxStateRank = 5;

// Identity of a tensor's contents. Two tensors with equal identities hold the same
// bytes, as far as torch can tell. Plain data: the stored key holds references beside
// it which keep the addresses from being used again.
struct TensorIdentity {
  const void* storage = nullptr;  // StorageImpl; null for an absent tensor
  const void* data = nullptr;
  const void* version_counter = nullptr;  // `.data` gives an alias with its own counter
  int64_t offset = 0;
  uint32_t version = 0;  // 0 for inference tensors, which have none
  int32_t rank = 0;
  int64_t sizes[kMaxStateRank];
  int64_t strides[kMaxStateRank];

  friend bool operator==(const TensorIdentity& a, const TensorIdentity& b);
};

// Everything a packing depends on. Built on the stack at each call, without
// allocation; tensors, post_ops and post_op_args are borrowed from the call.
class StateQuery {
 public:
  // `op` is a string literal: which kind of state, and so the type of its impl.
  StateQuery(const char* op, const at::Tensor& weight);

  void add(const at::Tensor& t);  // baked into the packing; rank <= kMaxStateRank
  void add(const std::optional<at::Tensor>& t) {
    if (t.has_value() && t->defined())
      add(*t);
    else
      add_absent();
  }
  void add(int64_t fact);
  void add(float fact) { add(static_cast<int64_t>(std::bit_cast<int32_t>(fact))); }
  void set_post_ops(std::string_view names, at::ArrayRef<double> args) {
    post_ops_ = names;
    post_op_args_ = args;
  }

  const char* op() const { return op_; }

 private:
  friend struct StateKey;
  friend PackedStatePtr find_or_pack(const StateQuery&, c10::function_ref<PackedState()>);
  void add_absent();

  const char* op_;
  uint64_t generation_;
  uint64_t digest_ = 0;
  int num_tensors_ = 0;
  int num_facts_ = 0;
  std::array<const at::Tensor*, kMaxStateTensors> tensors_;
  std::array<TensorIdentity, kMaxStateTensors> identities_;
  std::array<int64_t, kMaxStateFacts> facts_;
  std::string_view post_ops_;
  at::ArrayRef<double> post_op_args_;
};

// The state of this key, packed by `pack` when there is none. Concurrent first calls
// pack once; when pack throws, one of the waiting callers tries again, and so does
// the next call.
PackedStatePtr find_or_pack(const StateQuery& query, c10::function_ref<PackedState()> pack);

// Most recently used first. `ops` gives the op of each state.
struct StateReport {
  std::string op;
  PackedStatePtr state;
};
std::vector<StateReport> states_of(const at::Tensor& weight);
void clear_states(const at::Tensor& weight);

// Packings since load: over all weights, and of one weight with its views. A front-end
// that passes a fresh slice packs on every call, and the count of the base shows it.
int64_t pack_count();
int64_t pack_count(const at::Tensor& weight);

}  // namespace tae
