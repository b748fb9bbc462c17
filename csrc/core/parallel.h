// The one thread pool: ATen's intra-op pool, seen through a torch-free door.
#pragma once

#include <cstdint>
#include <type_traits>

namespace tae {

// Threads a parallel region opened now would have: 1 inside a region.
int num_threads();

// While it lives (and `on`), regions that its thread opens have one thread: for work that is cheaper
// than waking the others.
class SerialRegion {
 public:
  explicit SerialRegion(bool on);
  ~SerialRegion();
  SerialRegion(const SerialRegion&) = delete;
  SerialRegion& operator=(const SerialRegion&) = delete;

 private:
  bool before_;
};

// Index of the calling thread inside the current region, 0 outside.
int thread_index();

namespace detail {
using RangeFn = void (*)(void* context, int64_t begin, int64_t end);
using MemberFn = void (*)(void* context, int member, int members);
void parallel_for(int64_t count, int64_t grain, RangeFn fn, void* context);
void run_team(int most, MemberFn fn, void* context);
}  // namespace detail

// Calls body(begin, end) on disjoint ranges that cover [0, count). Serial when
// count <= grain, inside a region, or with one thread. Exceptions propagate.
template <typename Body>
void parallel_for(int64_t count, int64_t grain, Body&& body) {
  using B = std::remove_reference_t<Body>;
  detail::parallel_for(
      count, grain,
      [](void* context, int64_t begin, int64_t end) { (*static_cast<B*>(context))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// Calls body(member, members) on all members at the same time, at most `most` of them: a
// region whose members may wait for each other with team_barrier(). The body must not
// throw. One member inside another region or after a fork.
template <typename Body>
void run_team(int most, Body&& body) {
  using B = std::remove_reference_t<Body>;
  detail::run_team(
      most, [](void* context, int member, int members) { (*static_cast<B*>(context))(member, members); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// Inside run_team: returns when every member has come here. Nothing in a team of one.
void team_barrier();

}  // namespace tae
