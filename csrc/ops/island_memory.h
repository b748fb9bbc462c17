// Where the intermediate results of an island lie: one block for a whole run, planned from
// the first run with inputs of the same sizes.
//
// The first run allocates each result by itself and notes size and life; from that every
// result that dies inside the run gets a place, those alive together beside each other. A later
// run allocates the block once. What does not fit the plan (another size, a place that
// is still in use, results that leave the island) is allocated by itself: a plan may be
// useless, never wrong.
//
// A residual is added in place: the result of an operator that says so (MayOverwrite) lies where
// an operand of the same size lay that nobody reads afterwards.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "core/torch_api.h"

namespace tae {

struct MemoryPlan {
  struct Place {
    size_t bytes = 0;
    int64_t offset = -1;  // -1: allocated by itself
    int64_t over = -1;    // the place that it takes over while that is still in use
  };
  std::vector<Place> places;  // in the order of allocation
  size_t block_bytes = 0;
  size_t separate_bytes = 0;  // what the placed results would take without sharing
  int64_t in_place = 0;       // places that lie over another one
};

// A result of the first run: bytes, and when it was allocated and freed (-1: after the run). It may lie
// over an earlier one of the same size, which nobody reads behind the operator that makes this one.
struct Life {
  size_t bytes;
  int64_t born;
  int64_t died;
  int64_t over = -1;
};
MemoryPlan plan_memory(const std::vector<Life>& lives);

// The plans of a program by the sizes, strides and types of its inputs, a few of them.
class MemoryPlans {
 public:
  using Key = c10::SmallVector<int64_t, 24>;
  static Key key_of(at::TensorList inputs);

  // What a run with these inputs does about memory.
  struct Choice {
    bool plain = false;                      // nothing: plans did not fit before
    std::shared_ptr<const MemoryPlan> plan;  // null: note lives
  };
  Choice choose(const Key& key);
  void keep(const Key& key, MemoryPlan plan);
  // A run left its plan: the next one notes again, not more than a few times.
  void drop(const Key& key);
  std::vector<std::shared_ptr<const MemoryPlan>> all() const;

 private:
  struct Entry {
    Key key;
    std::shared_ptr<const MemoryPlan> plan;
    int dropped = 0;
  };
  Entry& entry(const Key& key);
  std::vector<Entry> entries_;  // newest last
};

// The allocator of one run, on one thread; results may outlive it.
class RunMemory {
 public:
  // With a null plan it notes lives.
  explicit RunMemory(std::shared_ptr<const MemoryPlan> plan);
  ~RunMemory();
  RunMemory(const RunMemory&) = delete;
  RunMemory& operator=(const RunMemory&) = delete;

  c10::Allocator* allocator();
  // Whether it matters what dies: when lives are noted, or the plan has results in place of others.
  bool asks_for_dying() const;
  // The starts of the memory of values that nobody reads behind the next operator.
  void set_dying(c10::SmallVector<const void*, 4> starts);
  // The plan from a run without one; results alive now leave the island.
  MemoryPlan noted() const;
  // Whether the run followed its plan to the end.
  bool followed() const;

  struct State;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace tae
