// Each pthreadpool function XNNPACK uses must run every tile exactly once.
#include "engines/xnnpack/pthreadpool_shim.h"

#include <omp.h>
#include <pthreadpool.h>
#include <xmmintrin.h>

#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <vector>

#include "core/parallel.h"

using tae::xnnpack::PoolHint;
using tae::xnnpack::ScopedPoolHint;

namespace {

constexpr size_t kRange[6] = {3, 2, 4, 2, 7, 5};  // i, j, k, l, m, n
constexpr size_t kTile = 3, kTile2 = 2;

// Visits of each point of a grid, and the largest thread index seen.
struct Visits {
  std::vector<std::atomic<int>> count;
  std::atomic<size_t> max_thread{0};

  explicit Visits(size_t points) : count(points) {}
  void at(size_t point) { ++count[point]; }
  void thread(size_t t) {
    for (size_t seen = max_thread; t > seen && !max_thread.compare_exchange_weak(seen, t);) {
    }
  }
  bool each_once() const {
    for (const auto& c : count)
      if (c != 1) return false;
    return true;
  }
};

Visits& visits(void* p) { return *static_cast<Visits*>(p); }

// Row-major position of the indices given.
template <typename... I>
size_t position(I... index) {
  const size_t i[] = {static_cast<size_t>(index)...};
  size_t p = 0;
  for (size_t d = 0; d < sizeof...(I); ++d) p = p * kRange[d] + i[d];
  return p;
}

// A whole tile of the last two dimensions.
template <typename... I>
void visit_tile(void* p, size_t extent_a, size_t extent_b, size_t a0, size_t b0, I... outer) {
  for (size_t a = a0; a < a0 + extent_a; ++a)
    for (size_t b = b0; b < b0 + extent_b; ++b) visits(p).at(position(outer..., a, b));
}

// Every function, on the threads in force.
void run_all() {
  const size_t* r = kRange;
  const auto points = [&](size_t dims) {
    size_t n = 1;
    for (size_t d = 0; d < dims; ++d) n *= r[d];
    return n;
  };
  const size_t threads = pthreadpool_get_threads_count(nullptr);
  const auto check = [&](const char* name, size_t dims, auto call) {
    Visits v(points(dims));
    call(static_cast<void*>(&v));
    INFO(name);
    CHECK(v.each_once());
    CHECK(v.max_thread < threads);
  };
  const auto none = uint32_t{0};
  check("1d", 1, [&](void* v) {
    pthreadpool_parallelize_1d(nullptr, [](void* p, size_t i) { visits(p).at(i); }, v, r[0], none);
  });
  check("1d_with_thread", 1, [&](void* v) {
    pthreadpool_parallelize_1d_with_thread(
        nullptr, [](void* p, size_t t, size_t i) { visits(p).thread(t), visits(p).at(i); }, v, r[0], none);
  });
  check("1d_tile_1d", 1, [&](void* v) {
    pthreadpool_parallelize_1d_tile_1d(
        nullptr,
        [](void* p, size_t i, size_t n) {
          for (size_t x = i; x < i + n; ++x) visits(p).at(x);
        },
        v, r[0], 2, none);
  });
  check("2d", 2, [&](void* v) {
    pthreadpool_parallelize_2d(
        nullptr, [](void* p, size_t i, size_t j) { visits(p).at(position(i, j)); }, v, r[0], r[1], none);
  });
  check("2d_with_thread", 2, [&](void* v) {
    pthreadpool_parallelize_2d_with_thread(
        nullptr,
        [](void* p, size_t t, size_t i, size_t j) {
          visits(p).thread(t);
          visits(p).at(position(i, j));
        },
        v, r[0], r[1], none);
  });
  check("2d_tile_1d", 2, [&](void* v) {
    pthreadpool_parallelize_2d_tile_1d(
        nullptr, [](void* p, size_t i, size_t j, size_t n) { visit_tile(p, 1, n, i, j); }, v, r[0], r[1],
        kTile, none);
  });
  check("2d_tile_2d", 2, [&](void* v) {
    pthreadpool_parallelize_2d_tile_2d(
        nullptr, [](void* p, size_t i, size_t j, size_t a, size_t b) { visit_tile(p, a, b, i, j); }, v, r[0],
        r[1], kTile2, kTile, none);
  });
  check("3d", 3, [&](void* v) {
    pthreadpool_parallelize_3d(
        nullptr, [](void* p, size_t i, size_t j, size_t k) { visits(p).at(position(i, j, k)); }, v, r[0],
        r[1], r[2], none);
  });
  check("3d_tile_1d", 3, [&](void* v) {
    pthreadpool_parallelize_3d_tile_1d(
        nullptr, [](void* p, size_t i, size_t j, size_t k, size_t n) { visit_tile(p, 1, n, j, k, i); }, v,
        r[0], r[1], r[2], kTile, none);
  });
  check("3d_tile_1d_with_thread", 3, [&](void* v) {
    pthreadpool_parallelize_3d_tile_1d_with_thread(
        nullptr,
        [](void* p, size_t t, size_t i, size_t j, size_t k, size_t n) {
          visits(p).thread(t);
          visit_tile(p, 1, n, j, k, i);
        },
        v, r[0], r[1], r[2], kTile, none);
  });
  check("3d_tile_2d", 3, [&](void* v) {
    pthreadpool_parallelize_3d_tile_2d(
        nullptr,
        [](void* p, size_t i, size_t j, size_t k, size_t a, size_t b) { visit_tile(p, a, b, j, k, i); }, v,
        r[0], r[1], r[2], kTile2, kTile, none);
  });
  check("4d", 4, [&](void* v) {
    pthreadpool_parallelize_4d(
        nullptr, [](void* p, size_t i, size_t j, size_t k, size_t l) { visits(p).at(position(i, j, k, l)); },
        v, r[0], r[1], r[2], r[3], none);
  });
  check("4d_tile_2d", 4, [&](void* v) {
    pthreadpool_parallelize_4d_tile_2d(
        nullptr,
        [](void* p, size_t i, size_t j, size_t k, size_t l, size_t a, size_t b) {
          visit_tile(p, a, b, k, l, i, j);
        },
        v, r[0], r[1], r[2], r[3], kTile, kTile2, none);
  });
  check("5d", 5, [&](void* v) {
    pthreadpool_parallelize_5d(
        nullptr,
        [](void* p, size_t i, size_t j, size_t k, size_t l, size_t m) {
          visits(p).at(position(i, j, k, l, m));
        },
        v, r[0], r[1], r[2], r[3], r[4], none);
  });
  check("5d_tile_2d", 5, [&](void* v) {
    pthreadpool_parallelize_5d_tile_2d(
        nullptr,
        [](void* p, size_t i, size_t j, size_t k, size_t l, size_t m, size_t a, size_t b) {
          visit_tile(p, a, b, l, m, i, j, k);
        },
        v, r[0], r[1], r[2], r[3], r[4], kTile2, kTile, none);
  });
  check("6d_tile_2d", 6, [&](void* v) {
    pthreadpool_parallelize_6d_tile_2d(
        nullptr,
        [](void* p, size_t i, size_t j, size_t k, size_t l, size_t m, size_t n, size_t a, size_t b) {
          visit_tile(p, a, b, m, n, i, j, k, l);
        },
        v, r[0], r[1], r[2], r[3], r[4], r[5], kTile, kTile2, none);
  });
}

constexpr unsigned kDenormalBits = 0x8040;

struct Modes {
  std::atomic<unsigned> all{~0u}, any{0};
};

Modes modes_in_tasks(uint32_t flags) {
  Modes m;
  pthreadpool_parallelize_1d(
      nullptr,
      [](void* p, size_t) {
        auto& modes = *static_cast<Modes*>(p);
        modes.all &= _mm_getcsr();
        modes.any |= _mm_getcsr();
      },
      &m, 64, flags);
  return Modes{m.all.load(), m.any.load()};
}

}  // namespace

TEST_CASE("pthreadpool shim runs every tile once", "[xnnpack]") {
  tae::num_threads();  // ATen sets its default on a thread's first call
  const int before = omp_get_max_threads();
  for (int threads = 1; threads <= 3; ++threads) {
    DYNAMIC_SECTION(threads << " threads") {
      omp_set_num_threads(threads);
      CHECK(pthreadpool_get_threads_count(nullptr) == static_cast<size_t>(threads));
      run_all();
    }
  }
  omp_set_num_threads(before);
}

TEST_CASE("pthreadpool shim does nothing for empty ranges", "[xnnpack]") {
  Visits v(1);
  pthreadpool_parallelize_1d(nullptr, [](void* p, size_t i) { visits(p).at(i); }, &v, 0, 0);
  pthreadpool_parallelize_2d_tile_2d(
      nullptr, [](void* p, size_t, size_t, size_t, size_t) { visits(p).at(0); }, &v, 0, 5, 2, 2, 0);
  CHECK(v.count[0] == 0);
}

// Inside a region one thread is reported, and tasks get index 0 on every thread:
// XNNPACK's workspace has room for one.
TEST_CASE("pthreadpool shim is serial inside a region and under the hint", "[xnnpack]") {
  tae::num_threads();
  const int before = omp_get_max_threads();
  omp_set_num_threads(2);
  std::atomic<int> wrong{0};
  tae::parallel_for(2, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      wrong += pthreadpool_get_threads_count(nullptr) != 1;
      Visits v(10);
      pthreadpool_parallelize_1d_with_thread(
          nullptr, [](void* p, size_t t, size_t x) { visits(p).thread(t), visits(p).at(x); }, &v, 10, 0);
      wrong += !v.each_once() || v.max_thread != 0;
    }
  });
  CHECK(wrong == 0);
  {
    ScopedPoolHint hint(PoolHint{.serial = true});
    CHECK(pthreadpool_get_threads_count(nullptr) == 1);
    run_all();
  }
  {
    ScopedPoolHint hint(PoolHint{.reported_threads = 17});
    CHECK(pthreadpool_get_threads_count(nullptr) == 17);
  }
  CHECK(pthreadpool_get_threads_count(nullptr) == 2);
  omp_set_num_threads(before);
}

TEST_CASE("pthreadpool shim sets and restores the denormal mode", "[xnnpack]") {
  const unsigned before = _mm_getcsr();
  const Modes plain = modes_in_tasks(0);
  CHECK((plain.any & kDenormalBits) == (before & kDenormalBits));
  const Modes flushed = modes_in_tasks(PTHREADPOOL_FLAG_DISABLE_DENORMALS);
  CHECK((flushed.all & kDenormalBits) == kDenormalBits);
  CHECK((_mm_getcsr() & ~0x3fu) == (before & ~0x3fu));
  CHECK((modes_in_tasks(0).any & kDenormalBits) == (before & kDenormalBits));
  ScopedPoolHint hint(PoolHint{.default_float_env = true});
  _mm_setcsr(before | kDenormalBits);
  const Modes standard = modes_in_tasks(PTHREADPOOL_FLAG_DISABLE_DENORMALS);
  CHECK((standard.any & kDenormalBits) == 0);
  CHECK((_mm_getcsr() & kDenormalBits) == kDenormalBits);
  _mm_setcsr(before);
}
