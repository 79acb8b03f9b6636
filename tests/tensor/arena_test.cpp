// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/arena.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <numeric>
#include <thread>

#include <catch2/catch.hpp>

#include "lib/base/random.h"
#include "lib/tensor/pages.h"
#include "lib/tensor/tensor.h"

namespace stmoe {
namespace {

bool overlap(int64_t a_begin, int64_t a_end, int64_t b_begin, int64_t b_end) {
  return a_begin < b_end && b_begin < a_end;
}

size_t live_peak(const std::vector<Lifetime>& lifetimes) {
  size_t peak = 0;
  for (const Lifetime& at : lifetimes) {
    size_t live = 0;
    for (const Lifetime& other : lifetimes)
      if (other.begin <= at.begin && at.begin < other.end) live += arena_bytes(other.bytes);
    peak = std::max(peak, live);
  }
  return peak;
}

void require_sound(const std::vector<Lifetime>& lifetimes, const ArenaPlan& plan) {
  REQUIRE(plan.offsets.size() == lifetimes.size());
  for (size_t i = 0; i < lifetimes.size(); ++i) {
    const Lifetime& a = lifetimes[i];
    REQUIRE(plan.offsets[i] % arena_bytes(1) == 0);
    REQUIRE(plan.offsets[i] + a.bytes <= plan.bytes);
    for (size_t j = 0; j < i; ++j) {
      const Lifetime& b = lifetimes[j];
      if (!overlap(a.begin, a.end, b.begin, b.end)) continue;
      const auto at = static_cast<int64_t>(plan.offsets[i]);
      const auto other = static_cast<int64_t>(plan.offsets[j]);
      REQUIRE(!overlap(at, at + static_cast<int64_t>(std::max<size_t>(a.bytes, 1)), other,
                       other + static_cast<int64_t>(std::max<size_t>(b.bytes, 1))));
    }
  }
}

// A step of a small model: a chain whose links live until they are used backwards.
void run_chain(int links, int64_t width) {
  std::vector<Tensor> kept;
  for (int i = 0; i < links; ++i) {
    const Tensor temporary = Tensor::full({width}, DType::f32, i);
    kept.push_back(temporary.clone());
  }
  for (int i = links - 1; i >= 0; --i) {
    const Tensor gradient = Tensor::full({width}, DType::f32, 0);
    CHECK(kept.back().data<float>()[width - 1] == static_cast<float>(i));
    kept.pop_back();
  }
}

// The planner's rule in its plainest form.
std::vector<size_t> offsets_by_pairs(const std::vector<Lifetime>& lifetimes) {
  std::vector<size_t> order(lifetimes.size()), offsets(lifetimes.size()), placed;
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(
      order, [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });
  for (size_t index : order) {
    const Lifetime& item = lifetimes[index];
    std::ranges::sort(placed, {}, [&](size_t other) { return offsets[other]; });
    size_t best = SIZE_MAX, best_gap = SIZE_MAX, cursor = 0;
    for (size_t other : placed) {
      const Lifetime& neighbour = lifetimes[other];
      if (neighbour.end <= item.begin || item.end <= neighbour.begin) continue;
      const size_t gap = offsets[other] > cursor ? offsets[other] - cursor : 0;
      if (gap >= arena_bytes(item.bytes) && gap < best_gap) {
        best = cursor;
        best_gap = gap;
      }
      cursor = std::max(cursor, offsets[other] + arena_bytes(neighbour.bytes));
    }
    offsets[index] = best == SIZE_MAX ? cursor : best;
    placed.push_back(index);
  }
  return offsets;
}

void run_step(StepArena& arena, int links, int64_t width, const char* phase = "train") {
  ArenaStep step(arena, phase);
  run_chain(links, width);
  step.finish();
}

size_t heap_growth_of_step(StepArena& arena, int links, int64_t width) {
  const size_t before = heap_bytes_in_use();
  size_t during = 0;
  ArenaStep step(arena, "train");
  {
    std::vector<Tensor> kept;
    for (int i = 0; i < links; ++i) kept.push_back(Tensor::empty({width}, DType::f32));
    during = heap_bytes_in_use();
  }
  step.finish();
  return during - before;
}

}  // namespace

TEST_CASE("planned offsets never overlap while both are alive", "[tensor][arena]") {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    INFO("seed " << seed);
    RandomStream random(RandomKey{seed});
    std::vector<Lifetime> lifetimes;
    const size_t count = 1 + random.below(80);
    const uint64_t longest = 1 + random.below(100);
    for (size_t i = 0; i < count; ++i) {
      const auto begin = static_cast<int64_t>(random.below(100));
      lifetimes.push_back({random.below(seed % 2 ? 5000 : 200), begin,
                           begin + 1 + static_cast<int64_t>(random.below(longest))});
    }
    const ArenaPlan plan = plan_offsets(lifetimes);
    require_sound(lifetimes, plan);
    CHECK(plan.bytes >= live_peak(lifetimes));
  }
  CHECK(plan_offsets({}).bytes == 0);
}

TEST_CASE("offsets are those of comparing every pair of lifetimes", "[tensor][arena]") {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    INFO("seed " << seed);
    RandomStream random(RandomKey{seed + 100});
    std::vector<Lifetime> lifetimes;
    for (int64_t i = 0; i < 300; ++i) {
      const auto begin = static_cast<int64_t>(random.below(400));
      const uint64_t longest = random.below(10) == 0 ? 600 : 20;
      lifetimes.push_back(
          {random.below(3000), begin, begin + 1 + static_cast<int64_t>(random.below(longest))});
    }
    CHECK(plan_offsets(lifetimes).offsets == offsets_by_pairs(lifetimes));
  }
}

TEST_CASE("a step of a hundred thousand tensors is planned as one of few", "[tensor][arena]") {
  std::vector<Lifetime> lifetimes, first;
  constexpr int64_t kParts = 1000, kTensors = 50;
  for (int64_t part = 0; part < kParts; ++part) {
    for (int64_t i = 0; i < kTensors; ++i) {
      const int64_t start = part * 4 * kTensors;
      lifetimes.push_back({1000, start + i, start + 4 * kTensors - i});  // kept
      lifetimes.push_back({300, start + i, start + i + 2});              // a temporary
    }
    if (part == 0) first = lifetimes;
  }
  CHECK(plan_offsets(lifetimes).bytes == live_peak(first));
}

TEST_CASE("a forward and backward chain is planned without waste", "[tensor][arena]") {
  std::vector<Lifetime> lifetimes;
  for (int64_t i = 0; i < 20; ++i) {
    lifetimes.push_back({1000, 10 * i, 400 - 10 * i});       // kept for the backward pass
    lifetimes.push_back({300, 10 * i + 1, 10 * i + 5});      // a temporary
    lifetimes.push_back({300, 391 - 10 * i, 395 - 10 * i});  // a gradient
  }
  CHECK(plan_offsets(lifetimes).bytes == live_peak(lifetimes));
}

TEST_CASE("from the second step on a phase takes nothing from the heap", "[tensor][arena]") {
  StepArena arena;
  CHECK(heap_growth_of_step(arena, 10, 1000) == 40000);
  CHECK(arena.planned_bytes() >= 40000);
  CHECK(arena.peak_live_bytes() == 40000);
  const size_t planned = arena.planned_bytes();
  for (int step = 0; step < 3; ++step) CHECK(heap_growth_of_step(arena, 10, 1000) == 0);
  CHECK(arena.planned_bytes() == planned);
  CHECK(StepArena::current() == nullptr);
}

TEST_CASE("values in the arena are not overwritten while they live", "[tensor][arena]") {
  StepArena arena;
  for (int step = 0; step < 4; ++step) run_step(arena, 30, 777);
}

TEST_CASE("a step that allocates differently falls back and is planned anew", "[tensor][arena]") {
  StepArena arena;
  heap_growth_of_step(arena, 4, 1000);
  CHECK(heap_growth_of_step(arena, 4, 1000) == 0);
  CHECK(heap_growth_of_step(arena, 4, 2000) == 32000);
  CHECK(heap_growth_of_step(arena, 4, 2000) == 0);
  CHECK(heap_growth_of_step(arena, 6, 2000) == 16000);  // four fit the plan
  CHECK(heap_growth_of_step(arena, 6, 2000) == 0);
  for (int step = 0; step < 6; ++step) run_step(arena, 10 + step % 3, 500 + 100 * (step % 2));
}

TEST_CASE("sizes that change from step to step are planned at their largest", "[tensor][arena]") {
  StepArena arena;
  auto heap_growth = [&](int64_t first, int64_t second) {
    const size_t before = heap_bytes_in_use();
    ArenaStep step(arena, "train");
    size_t during = 0;
    {
      const Tensor a = Tensor::empty({first}, DType::f64), b = Tensor::empty({second}, DType::f64);
      during = heap_bytes_in_use();
    }
    step.finish();
    return during - before;
  };
  heap_growth(100, 900);
  CHECK(heap_growth(800, 200) > 0);
  CHECK(heap_growth(100, 900) == 0);
  CHECK(heap_growth(800, 200) == 0);
  CHECK(heap_growth(500, 500) == 0);
}

TEST_CASE("phases are planned apart and share one block", "[tensor][arena]") {
  StepArena arena;
  run_step(arena, 20, 1000, "train");
  const size_t planned = arena.planned_bytes();
  run_step(arena, 3, 100, "evaluate");
  run_step(arena, 20, 1000, "train");
  run_step(arena, 3, 100, "evaluate");
  CHECK(arena.planned_bytes() == planned);
  CHECK(heap_growth_of_step(arena, 1, 8) == 0);
}

TEST_CASE("the first step of a phase does not lie beside another phase's block",
          "[tensor][arena]") {
  constexpr int64_t kWidth = 16 << 20;  // 64 MiB
  const auto resident = [] {
    std::ifstream file("/proc/self/statm");
    int64_t pages = 0, in_memory = 0;
    file >> pages >> in_memory;
    return in_memory * 4096;
  };
  StepArena arena;
  for (int i = 0; i < 2; ++i) {
    ArenaStep step(arena, "train");
    Tensor::empty({kWidth}, DType::f32).fill(1.0);
    step.finish();
  }
  const int64_t with_block = resident();
  ArenaStep step(arena, "evaluate");
  CHECK(resident() < with_block - (int64_t{48} << 20));
  step.finish();
}

TEST_CASE("a tensor that outlives its step is detected, unless it went to the heap",
          "[tensor][arena]") {
  StepArena arena;
  for (int round = 0; round < 2; ++round) {
    INFO("round " << round);
    Tensor kept;
    {
      ArenaStep step(arena, "train");
      kept = Tensor::full({10}, DType::f32, 5).clone_to_heap();
      step.finish();
    }
    CHECK(kept.data<float>()[9] == 5);
    Tensor stray;
    ArenaStep step(arena, "train");
    stray = Tensor::full({10}, DType::f32, 6);
    CHECK_THROWS_WITH(step.finish(), Catch::Contains("1 tensors (40 bytes) outlive the step"));
    CHECK(stray.data<float>()[9] == 6);
  }
}

TEST_CASE("the memory of a stray tensor is not given to the next step", "[tensor][arena]") {
  StepArena arena;
  for (int step = 0; step < 2; ++step) run_step(arena, 5, 100);
  Tensor stray;
  {
    ArenaStep step(arena, "train");
    stray = Tensor::full({100}, DType::f32, 9);
    CHECK_THROWS_AS(step.finish(), BugError);
  }
  for (int step = 0; step < 3; ++step) run_step(arena, 5, 100);
  for (float value : stray.span<float>()) REQUIRE(value == 9);
}

TEST_CASE("a step left by an exception is abandoned without a complaint", "[tensor][arena]") {
  StepArena arena;
  for (int step = 0; step < 2; ++step) run_step(arena, 5, 100);
  Tensor outside;
  auto failing = [&] {
    ArenaStep step(arena, "train");
    outside = Tensor::full({100}, DType::f32, 3);
    const Tensor second = outside.clone();
    throw InputError("in the middle");
  };
  CHECK_THROWS_AS(failing(), InputError);
  CHECK(StepArena::current() == nullptr);
  CHECK(outside.data<float>()[0] == 3);
  for (int step = 0; step < 3; ++step) run_step(arena, 5, 100);
  CHECK(outside.data<float>()[99] == 3);
}

TEST_CASE("a tensor may even outlive its arena", "[tensor][arena]") {
  Tensor stray;
  {
    StepArena arena;
    for (int step = 0; step < 2; ++step) run_step(arena, 1, 100);
    ArenaStep step(arena, "train");
    stray = Tensor::full({100}, DType::f32, 4);
  }
  CHECK(stray.data<float>()[99] == 4);
}

TEST_CASE("an arena serves its own thread only, and one step at a time", "[tensor][arena]") {
  StepArena arena, other;
  run_step(arena, 2, 50);
  ArenaStep step(arena, "train");
  CHECK_THROWS_AS(other.begin_step("train"), BugError);
  CHECK_THROWS_AS(arena.begin_step("train"), BugError);
  Tensor elsewhere;
  std::thread([&] {
    CHECK(StepArena::current() == nullptr);
    elsewhere = Tensor::full({10}, DType::f32, 1);
  }).join();
  step.finish();  // `elsewhere` is not of this step
  CHECK(elsewhere.data<float>()[0] == 1);
}

TEST_CASE("what is alive at the peak is told by the op that made it", "[tensor][arena]") {
  StepArena arena;
  start_profile();
  {
    ArenaStep step(arena, "train");
    {
      const OpScope outer("kept", OpScope::Pass::forward);
      const Tensor kept = Tensor::empty({100}, DType::f32), more = Tensor::empty({50}, DType::f32);
      { const Tensor gone = Tensor::empty({300}, DType::f32); }
      const OpScope inner("late", OpScope::Pass::backward);
      const Tensor late = Tensor::empty({400}, DType::f32);
    }
    step.finish();
  }
  stop_profile();
  const auto parts = arena.alive_at_peak();
  REQUIRE(parts.size() == 2);
  CHECK(std::string(parts[0].maker.op) == "late");
  CHECK(parts[0].bytes == 1600);
  CHECK(std::string(parts[1].maker.op) == "kept");
  CHECK(parts[1].bytes == 600);
  CHECK(parts[1].tensors == 2);
}

TEST_CASE("large buffers are whole, zeroed and aligned pages that go back to the system",
          "[tensor][arena]") {
  for (size_t bytes : {size_t{1}, size_t{300'000}, size_t{40} << 20}) {
    Pages pages(bytes);
    REQUIRE(pages.data() != nullptr);
    CHECK(pages.bytes() >= bytes);
    CHECK(reinterpret_cast<uintptr_t>(pages.data()) % (bytes > size_t{16} << 20 ? 1 << 21 : 4096) ==
          0);
    CHECK(std::all_of(pages.data(), pages.data() + bytes,
                      [](std::byte value) { return value == std::byte{0}; }));
    pages.data()[bytes - 1] = std::byte{7};
    const Pages moved = std::move(pages);
    CHECK(moved.data()[bytes - 1] == std::byte{7});
    CHECK(pages.data() == nullptr);
  }
  CHECK(Pages(0).data() == nullptr);
  CHECK(Pages(size_t{1} << 60).data() == nullptr);  // there is no room
}

TEST_CASE("heap buffers are counted", "[tensor][arena]") {
  const size_t before = heap_bytes_in_use();
  {
    const Tensor x = Tensor::empty({1000}, DType::f64);
    CHECK(heap_bytes_in_use() == before + 8000);
    CHECK(heap_bytes_peak() >= before + 8000);
  }
  CHECK(heap_bytes_in_use() == before);
}

}  // namespace stmoe
