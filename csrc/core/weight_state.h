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

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/state_key.h"

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

constexpr int kMaxStates = 4;  // a weight, per TensorImpl

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
