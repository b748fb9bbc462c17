#include "ops/island_memory.h"

#include <algorithm>
#undef CHECK  // c10's
#include <catch2/catch_test_macros.hpp>
#include <random>

#include "core/poison.h"
#include "core/result_memory.h"

namespace {

using tae::Life;

// Largest sum of what is alive at one moment: no plan can be smaller.
size_t least_bytes(const std::vector<Life>& lives) {
  size_t most = 0;
  for (const Life& now : lives) {
    size_t sum = 0;
    for (const Life& l : lives)
      if (l.died >= 0 && l.born <= now.born && now.born < l.died) sum += (l.bytes + 63) / 64 * 64;
    most = std::max(most, sum);
  }
  return most;
}

TEST_CASE("results that live together lie apart") {
  std::mt19937 rng(0);
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(rng);
  };
  for (int round = 0; round < 300; ++round) {
    std::vector<Life> lives;
    for (int64_t i = 0, n = draw(0, 40); i < n; ++i) {
      const bool leaves = draw(0, 9) == 0;
      lives.push_back({static_cast<size_t>(draw(1, 5000)), 2 * i, leaves ? -1 : 2 * i + 1 + 2 * draw(0, 6)});
    }
    const tae::MemoryPlan plan = tae::plan_memory(lives);
    REQUIRE(plan.places.size() == lives.size());
    CHECK(plan.block_bytes >= least_bytes(lives));
    CHECK(plan.block_bytes <= plan.separate_bytes);
    for (size_t i = 0; i < lives.size(); ++i) {
      CHECK((plan.places[i].offset < 0) == (lives[i].died < 0));
      if (lives[i].died < 0) continue;
      CHECK(plan.places[i].offset % 64 == 0);
      CHECK(plan.places[i].offset + lives[i].bytes <= plan.block_bytes);
      for (size_t j = 0; j < i; ++j) {
        if (lives[j].died < 0 || lives[i].born >= lives[j].died || lives[j].born >= lives[i].died) continue;
        const bool before =
            plan.places[i].offset + static_cast<int64_t>(lives[i].bytes) <= plan.places[j].offset;
        const bool behind =
            plan.places[j].offset + static_cast<int64_t>(lives[j].bytes) <= plan.places[i].offset;
        CHECK((before || behind));
      }
    }
  }
}

TEST_CASE("results over others share their places") {
  // 0 and 1 live; 2 over 0, 3 over 2 beside 4; 5 over 1 leaves; 6 over 5 cannot be.
  const std::vector<Life> lives = {{100, 0, 4},   {100, 1, 12},    {100, 3, 7, 0},  {100, 5, 10, 2},
                                   {1000, 6, 11}, {100, 9, -1, 1}, {100, 13, 14, 5}};
  const tae::MemoryPlan plan = tae::plan_memory(lives);
  CHECK(plan.places[2].offset == plan.places[0].offset);
  CHECK(plan.places[3].offset == plan.places[0].offset);
  CHECK(plan.places[1].offset != plan.places[0].offset);
  CHECK(plan.places[5].offset == -1);
  CHECK(plan.places[6].over == -1);
  CHECK(plan.block_bytes == 1024 + 2 * 128);
  CHECK(plan.separate_bytes == 1024 + 5 * 128);
}

TEST_CASE("a chain needs two places") {
  std::vector<Life> lives;
  for (int64_t i = 0; i < 20; ++i) lives.push_back({1000, 2 * i, 2 * i + 3});
  CHECK(tae::plan_memory(lives).block_bytes == 2 * 1024);
}

// The memory of a run that does not do what the first one did.
TEST_CASE("a place in use is not given out again") {
  tae::MemoryPlan plan;
  plan.places = {{64, 0}, {64, 0}, {64, 64}};
  plan.block_bytes = 128;
  const auto shared = std::make_shared<const tae::MemoryPlan>(plan);
  c10::DataPtr kept;
  {
    tae::RunMemory memory(shared);
    kept = memory.allocator()->allocate(64);
    const c10::DataPtr other = memory.allocator()->allocate(64);
    CHECK(kept.get() != other.get());
    const c10::DataPtr third = memory.allocator()->allocate(64);
    CHECK(static_cast<char*>(third.get()) == static_cast<char*>(kept.get()) + 64);
    CHECK_FALSE(memory.followed());
  }
  std::fill_n(static_cast<char*>(kept.get()), 64, 'x');  // the block lives as long as this
}

// A result over another one: the operator must allow it and be its last reader, in every run.
TEST_CASE("memory is taken over only while both sides say so") {
  const at::Tensor stranger = tae::new_tensor({100}, at::kByte);
  std::shared_ptr<const tae::MemoryPlan> plan;
  const std::pair<bool, bool> rounds[] = {{true, true}, {true, true}, {true, false}, {false, true}};
  for (const auto& [allows, dies] : rounds) {
    tae::RunMemory memory(plan);
    const tae::ResultAllocator scope(memory.allocator());
    at::Tensor first = tae::new_tensor({100}, at::kByte);
    memory.set_dying({});
    if (dies) memory.set_dying({first.storage().data()});
    at::Tensor second;
    {
      const tae::MayOverwrite overwrites(allows ? first : stranger);
      second = tae::new_tensor({100}, at::kByte);
    }
    CHECK((first.data_ptr() == second.data_ptr()) == (plan != nullptr && allows && dies));
    if (plan != nullptr) CHECK(memory.followed() == (allows && dies));
    first = second = at::Tensor();
    if (plan != nullptr) continue;
    plan = std::make_shared<const tae::MemoryPlan>(memory.noted());
    CHECK(plan->places.at(1).over == 0);
    CHECK(plan->block_bytes == 128);
  }
}

#ifdef TAE_POISONS
TEST_CASE("a place belongs to its results alone") {
  tae::MemoryPlan plan;
  plan.places = {{100, 0}, {100, 128}};
  plan.block_bytes = 256;
  tae::RunMemory memory(std::make_shared<const tae::MemoryPlan>(plan));
  c10::DataPtr first = memory.allocator()->allocate(100);
  char* const start = static_cast<char*>(first.get());
  CHECK(__asan_region_is_poisoned(start, 100) == nullptr);
  CHECK(__asan_region_is_poisoned(start, 101) != nullptr);
  CHECK(__asan_address_is_poisoned(start + 128));
  const c10::DataPtr second = memory.allocator()->allocate(100);
  first.clear();
  CHECK(__asan_address_is_poisoned(start));
  CHECK(__asan_region_is_poisoned(start + 128, 100) == nullptr);
}
#endif

TEST_CASE("a run notes what it frees") {
  tae::RunMemory memory(nullptr);
  c10::DataPtr first = memory.allocator()->allocate(100);
  c10::DataPtr second = memory.allocator()->allocate(100);
  first.clear();
  c10::DataPtr third = memory.allocator()->allocate(50);
  second.clear();
  const tae::MemoryPlan plan = memory.noted();
  CHECK(plan.block_bytes == 256);
  CHECK(plan.places.at(2).offset == -1);
}

}  // namespace
