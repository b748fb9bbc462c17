// The one thread pool: ATen's intra-op pool, seen through a torch-free door.
#pragma once

#include <cstdint>
#include <type_traits>

namespace tae {

// Threads a parallel region opened now would have: 1 inside a region.
int num_threads();

// Index of the calling thread inside the current region, 0 outside.
int thread_index();

namespace detail {
using RangeFn = void (*)(void* context, int64_t begin, int64_t end);
void parallel_for(int64_t count, int64_t grain, RangeFn fn, void* context);
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

}  // namespace tae
