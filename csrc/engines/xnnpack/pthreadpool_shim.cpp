// The 17 pthreadpool functions XNNPACK references on x86-64, over ATen's thread
// pool (core/parallel.h), so that the process has one pool that follows
// torch.set_num_threads. The signatures come from pthreadpool.h; the pool pointer
// is always null. The version script of the final library hides the names:
// libtorch_cpu exports a pthreadpool of its own.
#include "engines/xnnpack/pthreadpool_shim.h"

#include <pthreadpool.h>
#include <xmmintrin.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>

#include "core/parallel.h"

namespace tae::xnnpack {
namespace {

thread_local PoolHint current_hint;

}  // namespace

ScopedPoolHint::ScopedPoolHint(const PoolHint& hint) : previous_(current_hint) { current_hint = hint; }
ScopedPoolHint::~ScopedPoolHint() { current_hint = previous_; }

namespace {

// MXCSR for the tasks, on whichever thread runs them, and the thread's own value
// afterwards. PTHREADPOOL_FLAG_DISABLE_DENORMALS asks for flush-to-zero and
// denormals-are-zero; the caller's hint goes before it.
enum class FloatMode { callers, no_denormals, standard };

FloatMode float_mode(uint32_t flags) {
  if (current_hint.default_float_env) return FloatMode::standard;
  return (flags & PTHREADPOOL_FLAG_DISABLE_DENORMALS) != 0 ? FloatMode::no_denormals : FloatMode::callers;
}

class FloatModeScope {
 public:
  explicit FloatModeScope(FloatMode mode) : mode_(mode) {
    if (mode_ == FloatMode::callers) return;
    constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040, kStandard = 0x1f80;
    saved_ = _mm_getcsr();
    _mm_setcsr(mode_ == FloatMode::standard ? kStandard : saved_ | kFlushToZero | kDenormalsAreZero);
  }
  ~FloatModeScope() {
    if (mode_ != FloatMode::callers) _mm_setcsr(saved_);
  }
  FloatModeScope(const FloatModeScope&) = delete;
  FloatModeScope& operator=(const FloatModeScope&) = delete;

 private:
  FloatMode mode_;
  unsigned saved_ = 0;
};

// Calls task(flat, thread) for every flat in [0, count). Tiles are claimed from one
// counter: XNNPACK cuts about 5 a thread, too few for a static split to be even.
// noexcept: an exception must not unwind XNNPACK's C frames. Tasks are C and do
// not throw; the pool may (no memory for its region). What it then left undone is
// still in the counter and runs here.
template <typename Task>
void run_tiles(size_t count, uint32_t flags, Task task) noexcept {
  const FloatMode mode = float_mode(flags);
  const size_t threads =
      current_hint.serial ? 1 : std::min<size_t>(count, static_cast<size_t>(num_threads()));
  if (threads <= 1) {
    // Thread 0 even inside a region where thread_index() is larger: XNNPACK sized
    // its per-thread workspaces for the one thread that was reported.
    FloatModeScope scope(mode);
    for (size_t flat = 0; flat < count; ++flat) task(flat, 0);
    return;
  }
  std::atomic<size_t> next{0};
  const auto drain = [&](size_t thread) {
    FloatModeScope scope(mode);
    for (size_t flat; (flat = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(flat, thread);
  };
  try {
    parallel_for(static_cast<int64_t>(threads), 1,
                 [&](int64_t, int64_t) { drain(static_cast<size_t>(thread_index())); });
  } catch (...) {
  }
  drain(0);
}

struct Dimension {
  size_t range = 0;
  size_t tile = 1;

  size_t tiles() const { return (range + tile - 1) / tile; }
  size_t begin(size_t index) const { return index * tile; }
  size_t extent(size_t index) const { return std::min(tile, range - begin(index)); }
};

// Runs a grid of tiles, last dimension fastest. call(index, thread) gets the tile
// numbers of one tile.
template <size_t R, typename Call>
void run_grid(const std::array<Dimension, R>& grid, uint32_t flags, Call call) noexcept {
  size_t count = 1;
  for (const Dimension& d : grid) count *= d.tiles();
  run_tiles(count, flags, [&](size_t flat, size_t thread) {
    std::array<size_t, R> index{};
    for (size_t d = R; d-- > 0;) {
      index[d] = flat % grid[d].tiles();
      flat /= grid[d].tiles();
    }
    call(index, thread);
  });
}

// task(argument, i, j, ...) for every point of an untiled grid.
template <typename Task, typename... Ranges>
void run_points(Task task, void* argument, uint32_t flags, Ranges... ranges) noexcept {
  constexpr size_t R = sizeof...(Ranges);
  run_grid<R>({Dimension{ranges, 1}...}, flags, [&](const std::array<size_t, R>& at, size_t) {
    [&]<size_t... I>(std::index_sequence<I...>) { task(argument, at[I]...); }(std::make_index_sequence<R>{});
  });
}

// task(argument, i, ..., j0, k0, j_extent, k_extent): the last two dimensions tiled.
template <typename Task, typename... Ranges>
void run_tile_2d(Task task, void* argument, uint32_t flags, Dimension row, Dimension column,
                 Ranges... outer) noexcept {
  constexpr size_t R = sizeof...(Ranges);
  run_grid<R + 2>({Dimension{outer, 1}..., row, column}, flags,
                  [&](const std::array<size_t, R + 2>& at, size_t) {
                    [&]<size_t... I>(std::index_sequence<I...>) {
                      task(argument, at[I]..., row.begin(at[R]), column.begin(at[R + 1]), row.extent(at[R]),
                           column.extent(at[R + 1]));
                    }(std::make_index_sequence<R>{});
                  });
}

}  // namespace
}  // namespace tae::xnnpack

using tae::xnnpack::Dimension;
using namespace tae::xnnpack;

extern "C" {

size_t pthreadpool_get_threads_count(pthreadpool_t) {
  if (current_hint.reported_threads != 0) return current_hint.reported_threads;
  return current_hint.serial ? 1 : static_cast<size_t>(tae::num_threads());
}

void pthreadpool_parallelize_1d(pthreadpool_t, pthreadpool_task_1d_t task, void* argument, size_t range,
                                uint32_t flags) {
  run_points(task, argument, flags, range);
}

void pthreadpool_parallelize_1d_with_thread(pthreadpool_t, pthreadpool_task_1d_with_thread_t task,
                                            void* argument, size_t range, uint32_t flags) {
  run_tiles(range, flags, [&](size_t i, size_t thread) { task(argument, thread, i); });
}

void pthreadpool_parallelize_1d_tile_1d(pthreadpool_t, pthreadpool_task_1d_tile_1d_t task, void* argument,
                                        size_t range, size_t tile, uint32_t flags) {
  const Dimension d{range, tile};
  run_tiles(d.tiles(), flags, [&](size_t i, size_t) { task(argument, d.begin(i), d.extent(i)); });
}

void pthreadpool_parallelize_2d(pthreadpool_t, pthreadpool_task_2d_t task, void* argument, size_t range_i,
                                size_t range_j, uint32_t flags) {
  run_points(task, argument, flags, range_i, range_j);
}

void pthreadpool_parallelize_2d_with_thread(pthreadpool_t, pthreadpool_task_2d_with_thread_t task,
                                            void* argument, size_t range_i, size_t range_j, uint32_t flags) {
  run_grid<2>({Dimension{range_i, 1}, Dimension{range_j, 1}}, flags,
              [&](const std::array<size_t, 2>& at, size_t thread) { task(argument, thread, at[0], at[1]); });
}

void pthreadpool_parallelize_2d_tile_1d(pthreadpool_t, pthreadpool_task_2d_tile_1d_t task, void* argument,
                                        size_t range_i, size_t range_j, size_t tile_j, uint32_t flags) {
  const Dimension dj{range_j, tile_j};
  run_grid<2>({Dimension{range_i, 1}, dj}, flags, [&](const std::array<size_t, 2>& at, size_t) {
    task(argument, at[0], dj.begin(at[1]), dj.extent(at[1]));
  });
}

// XNNPACK's plain GEMM: i rows of A, j columns of B. j is the outer dimension here,
// so that a slab of packed weights is used for all rows while it is in the cache.
void pthreadpool_parallelize_2d_tile_2d(pthreadpool_t, pthreadpool_task_2d_tile_2d_t task, void* argument,
                                        size_t range_i, size_t range_j, size_t tile_i, size_t tile_j,
                                        uint32_t flags) {
  const Dimension di{range_i, tile_i}, dj{range_j, tile_j};
  run_grid<2>({dj, di}, flags, [&](const std::array<size_t, 2>& at, size_t) {
    task(argument, di.begin(at[1]), dj.begin(at[0]), di.extent(at[1]), dj.extent(at[0]));
  });
}

void pthreadpool_parallelize_3d(pthreadpool_t, pthreadpool_task_3d_t task, void* argument, size_t range_i,
                                size_t range_j, size_t range_k, uint32_t flags) {
  run_points(task, argument, flags, range_i, range_j, range_k);
}

void pthreadpool_parallelize_3d_tile_1d(pthreadpool_t, pthreadpool_task_3d_tile_1d_t task, void* argument,
                                        size_t range_i, size_t range_j, size_t range_k, size_t tile_k,
                                        uint32_t flags) {
  const Dimension dk{range_k, tile_k};
  run_grid<3>({Dimension{range_i, 1}, Dimension{range_j, 1}, dk}, flags,
              [&](const std::array<size_t, 3>& at, size_t) {
                task(argument, at[0], at[1], dk.begin(at[2]), dk.extent(at[2]));
              });
}

void pthreadpool_parallelize_3d_tile_1d_with_thread(pthreadpool_t,
                                                    pthreadpool_task_3d_tile_1d_with_thread_t task,
                                                    void* argument, size_t range_i, size_t range_j,
                                                    size_t range_k, size_t tile_k, uint32_t flags) {
  const Dimension dk{range_k, tile_k};
  run_grid<3>({Dimension{range_i, 1}, Dimension{range_j, 1}, dk}, flags,
              [&](const std::array<size_t, 3>& at, size_t thread) {
                task(argument, thread, at[0], at[1], dk.begin(at[2]), dk.extent(at[2]));
              });
}

void pthreadpool_parallelize_3d_tile_2d(pthreadpool_t, pthreadpool_task_3d_tile_2d_t task, void* argument,
                                        size_t range_i, size_t range_j, size_t range_k, size_t tile_j,
                                        size_t tile_k, uint32_t flags) {
  run_tile_2d(task, argument, flags, {range_j, tile_j}, {range_k, tile_k}, range_i);
}

void pthreadpool_parallelize_4d(pthreadpool_t, pthreadpool_task_4d_t task, void* argument, size_t range_i,
                                size_t range_j, size_t range_k, size_t range_l, uint32_t flags) {
  run_points(task, argument, flags, range_i, range_j, range_k, range_l);
}

void pthreadpool_parallelize_4d_tile_2d(pthreadpool_t, pthreadpool_task_4d_tile_2d_t task, void* argument,
                                        size_t range_i, size_t range_j, size_t range_k, size_t range_l,
                                        size_t tile_k, size_t tile_l, uint32_t flags) {
  run_tile_2d(task, argument, flags, {range_k, tile_k}, {range_l, tile_l}, range_i, range_j);
}

void pthreadpool_parallelize_5d(pthreadpool_t, pthreadpool_task_5d_t task, void* argument, size_t range_i,
                                size_t range_j, size_t range_k, size_t range_l, size_t range_m,
                                uint32_t flags) {
  run_points(task, argument, flags, range_i, range_j, range_k, range_l, range_m);
}

void pthreadpool_parallelize_5d_tile_2d(pthreadpool_t, pthreadpool_task_5d_tile_2d_t task, void* argument,
                                        size_t range_i, size_t range_j, size_t range_k, size_t range_l,
                                        size_t range_m, size_t tile_l, size_t tile_m, uint32_t flags) {
  run_tile_2d(task, argument, flags, {range_l, tile_l}, {range_m, tile_m}, range_i, range_j, range_k);
}

void pthreadpool_parallelize_6d_tile_2d(pthreadpool_t, pthreadpool_task_6d_tile_2d_t task, void* argument,
                                        size_t range_i, size_t range_j, size_t range_k, size_t range_l,
                                        size_t range_m, size_t range_n, size_t tile_m, size_t tile_n,
                                        uint32_t flags) {
  run_tile_2d(task, argument, flags, {range_m, tile_m}, {range_n, tile_n}, range_i, range_j, range_k,
              range_l);
}

}  // extern "C"
