// What a packing of a weight is found by: the identity and version of the weight and of every
// tensor baked into it, and every number, dtype and flag that it depends on.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/torch_api.h"

namespace tae {

constexpr int kMaxStateTensors = 8;  // weight, scales, zero points, bias, ...
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
  const at::Tensor& weight() const { return *tensors_[0]; }

 private:
  friend struct StateKey;
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

// A query made to last: owned strings, and references that keep each address in it
// from being given to another storage or version counter. There is no hash: a holder
// has at most four keys, and comparing one costs less than hashing it.
struct StateKey {
  explicit StateKey(const StateQuery& q);
  StateKey(const StateKey&) = delete;

  bool matches(const StateQuery& q) const;
  // True when no later query can match: a version counter only counts up, and so does
  // the generation of the settings.
  bool superseded_by(const StateQuery& q) const;

  StateQuery query;
  std::string post_ops;
  std::vector<double> post_op_args;
  c10::SmallVector<c10::weak_intrusive_ptr<c10::StorageImpl>, 4> storages;
  c10::SmallVector<c10::VariableVersion, 4> counters;
};

}  // namespace tae
