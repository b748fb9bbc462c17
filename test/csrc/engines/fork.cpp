// A child made while other threads are inside an engine: packing, choosing primitives,
// taking operators. It must be able to do all of that itself.
#include <array>
#include <atomic>
#include <catch2/catch_test_macros.hpp>

#include "core/parallel.h"
#include "engines/linear.h"
#include "engines/onednn/onednn.h"
#include "test/csrc/core/fork_testing.h"
#include "test/csrc/engines/onednn/linear_cases.h"

using namespace tae;
using namespace tae::test;

namespace {

using Make = Result<LinearImplPtr> (*)(const LinearProblem&);

void check_children(Make make) {
  std::mt19937 rng(1);
  const CaseRange plain{.asymmetric_weight = false, .any_post_op = false, .add = false};
  std::array<LinearCase, 3> cases;
  for (int i = 0; i < 3; ++i) cases[i] = make_case(rng, 1, 1 + i, 64, 64, /*dynamic=*/true, plain);
  std::array<LinearImplPtr, 3> shared;
  std::array<std::vector<uint8_t>, 3> wanted;
  for (int i = 0; i < 3; ++i) {
    auto made = make(cases[i].p);
    REQUIRE(made);
    shared[i] = made.value();
    wanted[i] = cases[i].run(*shared[i]);
  }
  std::atomic<int> wrong{0};
  const auto run = [&](int i) {
    const LinearCase& c = cases[i % 3];
    const bool fresh = i % 2 == 0;
    const LinearImplPtr impl = fresh ? make(c.p).value() : shared[i % 3];
    return c.run(*impl) == wanted[i % 3];
  };
  const Hammer hammer(3, [&](int i) {
    if (!run(i)) wrong.fetch_add(1);
  });
  for (int i = 0; i < 40; ++i) {
    const bool good = child_succeeds([&] {
      bool same = true;
      for (int j = 0; j < 6; ++j) same = run(j) && same;
      return same;
    });
    REQUIRE(good);
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("fork: children of a process that is inside native", "[fork]") {
  check_children(make_linear_native);
}

TEST_CASE("fork: children of a process that is inside xnnpack", "[fork]") {
  check_children(make_linear_xnnpack);
}

TEST_CASE("fork: children of a process that is inside onednn", "[fork]") {
  if (!onednn::init_error().empty()) SKIP(onednn::init_error());
  check_children(make_linear_onednn);
}

// cached_gemm alone: its lock, nearly always held, and code generation.
TEST_CASE("fork: children of a process that chooses and generates oneDNN code", "[fork]") {
  if (!onednn::init_error().empty()) SKIP(onednn::init_error());
  std::atomic<int64_t> next{1};
  const Hammer lookups(2, [&](int) { onednn::cached_gemm(4, 64, 64); });
  const Hammer generation(1, [&](int) { onednn::cached_gemm(4, 64 * next.fetch_add(1), 64); });
  for (int i = 0; i < 20; ++i) {
    const bool good = child_succeeds([&] {
      return onednn::cached_gemm(4, 64, 64)->error().empty() &&
             onednn::cached_gemm(4, 64 * (next + 100), 64)->error().empty();
    });
    REQUIRE(good);
  }
}
